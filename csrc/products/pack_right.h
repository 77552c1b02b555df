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

// Where value k of column j stands in a panel.
inline int64_t place(int64_t k, int j) { return (k / kKGroup * Tile::kColumns + j) * kKGroup + k % kKGroup; }

// Four k of a vector of columns, from where the first of them stands. A product whose k are in groups has its own.
template <class Packed>
inline __attribute__((always_inline)) void store_four(Packed* at, const Vec (&four)[4]) {
#pragma GCC unroll 4
  for (int u = 0; u < 4; ++u) store(at + u * Tile::kColumns, four[u]);
}

// Calls store_four(k, j, values) for the values of k to k + 3 of columns j to j + kLanes, and store_one(k, j, value)
// for those where no four are to be had: all of one panel, zeros past the last k and the last column. Four k at a time
// where a k's values are neighbours (attention's values) and where a column's are (a weight, keys); one by one the taps
// of a wider kernel.
template <class StoreFour, class StoreOne>
inline __attribute__((always_inline)) void for_each_value(const Columns<const float>& right, const float* values,
                                                          int columns, const StoreFour& store_four,
                                                          const StoreOne& store_one) {
  const ptrdiff_t stride = right.column_stride, k_stride = right.k_stride;
  const int64_t depth4 = right.depth / 4 * 4;
  int by_fours = 0;  // columns
  Vec four[4];
  if (stride == 1) {
    by_fours = Tile::kColumns;
    for (int64_t k = 0; k < depth4; k += 4) {
      const float* row = values + k * k_stride;
      for (int j = 0; j < Tile::kVectors; ++j) {
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) four[u] = load_columns(row + u * k_stride, columns, j);
        store_four(k, j * Vec::kLanes, four);
      }
    }
  } else if (k_stride == 1) {
    by_fours = columns / Vec::kLanes * Vec::kLanes;
    for (int j = 0; j < by_fours; j += Vec::kLanes) {
      for (int64_t k = 0; k < depth4; k += 4) {
        load_transposed(values + j * stride + k, stride, four);
        store_four(k, j, four);
      }
    }
  }
  const int64_t padded = kLayout.padded_depth(right.depth);
  for (int64_t k = by_fours == Tile::kColumns ? depth4 : 0; k < padded; ++k) {
    for (int j = k < depth4 ? by_fours : 0; j < Tile::kColumns; ++j) {
      store_one(k, j, k < right.depth && j < columns ? values[j * stride + k * k_stride] : 0.0f);
    }
  }
}

inline float load_one(const float* p) { return *p; }
template <class Element>
inline float load_one(const Element* p) {
  Element lanes[Vec::kLanes] = {*p};
  float values[Vec::kLanes];
  store(values, load(lanes));
  return values[0];
}

// The functions of a product that have to do with its right side. quantized_right.h has those of whole numbers.
template <class Packed, bool = kQuantized>
struct Right {
  static void pack(const Columns<const float>& right, void* panels) {
    for_each_panel(right, static_cast<Packed*>(panels), [&](Packed* panel, const float* values, int columns) {
      for_each_value(
          right, values, columns,
          [&](int64_t k, int j, const Vec(&four)[4])
              __attribute__((always_inline)) { store_four(panel + place(k, j), four); },
          [&](int64_t k, int j, float value) { store_one(panel + place(k, j), value); });
    });
  }

  static void unpack(const void* panels, const Columns<float>& right) {
    for_each_panel(right, static_cast<const Packed*>(panels), [&](const Packed* panel, float* values, int columns) {
      for (int j = 0; j < columns; ++j) {
        for (int64_t k = 0; k < right.depth; ++k) {
          values[j * right.column_stride + k * right.k_stride] = load_one(panel + place(k, j));
        }
      }
    });
  }

  static constexpr const QuantizedRight* quantized = nullptr;
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
