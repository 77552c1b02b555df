// A product, panel by panel and tile by tile: a panel stays in cache while the rows stream past it.
#pragma once

#include "products/product.h"
#include "products/tile.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// The left side's rows may be interleaved by so many (Tile::kRowsTogether): a tile begins with the first of them.
template <class Tile>
constexpr int rows_together() {
  if constexpr (requires { Tile::kRowsTogether; }) {
    return Tile::kRowsTogether;
  } else {
    return 1;
  }
}

inline void multiply_panel(const PanelArgs& a, int64_t rows, const void* next) {
  // The fewest tiles that cover the rows, their heights as even as they can be: 128 rows are 8 x 13 + 2 x 12, not 9 x
  // 14 and a 2 that would run at a seventh of the rate.
  const int64_t tiles = (rows + Tile::kRows - 1) / Tile::kRows;
  // Each tile fetches its share, in bytes, of the panel that comes after this one, spread over its steps; without it
  // the first tile of every panel waits for memory.
  constexpr ptrdiff_t kStepBytes = kStep * Tile::kColumns * static_cast<ptrdiff_t>(sizeof(Element));
  const char* ahead = static_cast<const char*>(next);
  const ptrdiff_t ahead_step = tiles > 0 ? (kStepBytes + tiles - 1) / tiles : 0;
  // The tail is read last, and by every tile.
  if constexpr (kTailBytes > 0) {
    const char* tail = reinterpret_cast<const char*>(a.right) + kLayout.tail_at(a.depth);
    for (int line = 0; line < kTailBytes; line += 64) __builtin_prefetch(tail + line, 0, 3);
  }
  constexpr int64_t kTogether = rows_together<Tile>();
  const int64_t bundles = (rows + kTogether - 1) / kTogether;
  int64_t row = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t most = (bundles / tiles + (t < bundles % tiles)) * kTogether;
    const int64_t here = most < rows - row ? most : rows - row;
    tile_of(here, a, row, ahead, ahead_step);
    row += here;
    ahead += ahead_step * (a.depth / kStep);
  }
}

inline void multiply(const ProductArgs& a) {
  const int64_t panel_bytes = kLayout.bytes(a.depth);
  const auto* panel = static_cast<const char*>(a.panels);
  for (int64_t column = 0; column < a.columns; column += Tile::kColumns, panel += panel_bytes) {
    const int64_t left = a.columns - column;
    const PanelArgs args = {
        .depth = a.depth,
        .columns = static_cast<int>(left < Tile::kColumns ? left : Tile::kColumns),
        .left = static_cast<const Left*>(a.left),
        .left_stride = a.left_stride / static_cast<ptrdiff_t>(sizeof(Left)),
        .right = reinterpret_cast<const Element*>(panel),
        .c = a.c + column,
        .c_stride = a.c_stride,
        .accumulate = a.accumulate,
        .bias = a.bias ? a.bias + column : nullptr,
        .row_scale = a.row_scale,
        .residual = a.residual ? a.residual + column : nullptr,
        .residual_stride = a.residual_stride,
        .gelu = a.gelu,
    };
    multiply_panel(args, a.rows, left > Tile::kColumns ? panel + panel_bytes : a.next);
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
