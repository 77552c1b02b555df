// Packing of a right side, and back: panels of Tile::kColumns columns, k-major, zeros past the last column.
#pragma once

#include "products/multiply.h"
#include "products/product.h"
#include "products/tile.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// Calls body(panel, the same values from its first column on, its columns) for every panel.
template <class Value, class Packed, class Body>
inline void for_each_panel(const Columns<Value>& all, Packed* panels, const Body& body) {
  const int64_t panel_elements = kLayout.bytes(all.depth) / static_cast<int64_t>(sizeof(Element));
  for (int64_t column = 0; column < all.columns; column += Tile::kColumns, panels += panel_elements) {
    const int64_t left = all.columns - column;
    body(panels, all.values + column * all.column_stride,
         static_cast<int>(left < Tile::kColumns ? left : Tile::kColumns));
  }
}

// Four columns of k at a time where a column's values are neighbours (a weight, or keys), a plain copy where a k's are
// (values), one by one otherwise (the taps of a wider kernel).
inline void pack_right(const Columns<const float>& right, void* panels) {
  constexpr int kLanes = Vec::kLanes;
  const int64_t depth = right.depth;
  const ptrdiff_t stride = right.column_stride, k_stride = right.k_stride;
  for_each_panel(right, static_cast<Element*>(panels), [&](Element* panel, const float* values, int columns) {
    if (stride == 1) {
      for (int64_t k = 0; k < depth; ++k) {
        const float* row = values + k * k_stride;
        Element* out = panel + k * Tile::kColumns;
        if (columns == Tile::kColumns) {
#pragma GCC unroll 8
          for (int j = 0; j < Tile::kVectors; ++j) store(out + j * kLanes, load(row + j * kLanes));
        } else {
          for (int j = 0; j < Tile::kVectors; ++j) store(out + j * kLanes, load_columns(row, columns, j));
        }
      }
      return;
    }
    const int whole = k_stride == 1 ? columns / kLanes * kLanes : 0;
    const int64_t depth4 = depth / 4 * 4;
    for (int j = 0; j < whole; j += kLanes) {
      for (int64_t k = 0; k < depth4; k += 4) {
        Vec column[4];
        load_transposed(values + j * stride + k, stride, column);
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) store(panel + (k + u) * Tile::kColumns + j, column[u]);
      }
    }
    for (int64_t k = columns == whole ? depth4 : 0; k < depth; ++k) {
      Element* row = panel + k * Tile::kColumns;
      for (int j = k < depth4 ? whole : 0; j < columns; ++j) store_one(row + j, values[j * stride + k * k_stride]);
    }
    if (columns == Tile::kColumns) return;
    for (int64_t k = 0; k < depth; ++k) {
      for (int j = columns; j < Tile::kColumns; ++j) store_one(panel + k * Tile::kColumns + j, 0.0f);
    }
  });
}

inline float load_one(const float* p) { return *p; }
inline float load_one(const Half* p) {
  Half lanes[Vec::kLanes] = {*p};
  float values[Vec::kLanes];
  store(values, load(lanes));
  return values[0];
}

inline void unpack_right(const void* panels, const Columns<float>& right) {
  for_each_panel(right, static_cast<const Element*>(panels), [&](const Element* panel, float* values, int columns) {
    for (int j = 0; j < columns; ++j) {
      for (int64_t k = 0; k < right.depth; ++k) {
        values[j * right.column_stride + k * right.k_stride] = load_one(panel + k * Tile::kColumns + j);
      }
    }
  });
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
