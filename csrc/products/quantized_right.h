// Packing of an int8 right side, and back: panels as pack_right.h makes them, of whole numbers, and in their tail the
// columns' scales, then what the product keeps beside them (finish_panel).
#pragma once

#include "products/pack_right.h"
#include "products/quantized.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

template <class Packed>
struct Right<Packed, true> {
  static void pack(const Columns<const float>& right, void* panels) {
    for_each_panel(right, static_cast<Packed*>(panels), [&](Packed* panel, const float* values, int columns) {
      float inverse[Tile::kColumns] = {};
      find_scales(right, values, columns, scales_of(panel, right.depth), inverse);
      for_each_value(
          right, values, columns,
          [&](int64_t k, int j, const Vec(&four)[4]) __attribute__((always_inline)) {
            const Vec factor = load(inverse + j);
            Ints whole[4];
#pragma GCC unroll 4
            for (int u = 0; u < 4; ++u) whole[u] = nearest(four[u] * factor);
            store_four(panel + place(k, j), whole);
          },
          [&](int64_t k, int j, float value) {
            panel[place(k, j)] = static_cast<Packed>(nearest(value * inverse[j]));
          });
      finish_panel(panel, right.depth);
    });
  }

  static void unpack(const void* panels, const Columns<float>& right) {
    for_each_panel(right, static_cast<const Packed*>(panels), [&](const Packed* panel, float* values, int columns) {
      const float* scales = scales_of(panel, right.depth);
      for (int j = 0; j < columns; ++j) {
        for (int64_t k = 0; k < right.depth; ++k) {
          values[j * right.column_stride + k * right.k_stride] = static_cast<float>(panel[place(k, j)]) * scales[j];
        }
      }
    });
  }

  static void quantize(const Columns<const float>& right, const Quantized<int8_t, float>& to) {
    for (int64_t column = 0; column < right.columns; ++column) {
      const float* values = right.values + column * right.column_stride;
      int32_t most = 0;
      for (int64_t k = 0; k < right.depth; ++k) most = larger(most, magnitude_bits(values[k * right.k_stride]));
      const Quantizer q = quantizer_of(most, kSignedLevels);
      to.scales[column * to.scale_stride] = q.scale;
      int8_t* whole = to.columns.values + column * to.columns.column_stride;
      for (int64_t k = 0; k < right.depth; ++k) {
        whole[k * to.columns.k_stride] = static_cast<int8_t>(nearest(values[k * right.k_stride] * q.inverse));
      }
    }
  }

  static void pack_quantized(const Quantized<const int8_t, const float>& right, void* panels) {
    const float* next_scale = right.scales;
    for_each_panel(right.columns, static_cast<Packed*>(panels), [&](Packed* panel, const int8_t* values, int columns) {
      const int64_t depth = right.columns.depth;
      for (int64_t k = 0; k < kLayout.padded_depth(depth); ++k) {
        for (int j = 0; j < Tile::kColumns; ++j) {
          const bool inside = k < depth && j < columns;
          panel[place(k, j)] = inside ? values[j * right.columns.column_stride + k * right.columns.k_stride] : Packed{};
        }
      }
      float* scales = scales_of(panel, depth);
      for (int j = 0; j < Tile::kColumns; ++j) scales[j] = j < columns ? next_scale[j * right.scale_stride] : 0.0f;
      next_scale += columns * right.scale_stride;
      finish_panel(panel, depth);
    });
  }

  static void unpack_quantized(const void* panels, const Quantized<int8_t, float>& right) {
    float* next_scale = right.scales;
    for_each_panel(right.columns, static_cast<const Packed*>(panels),
                   [&](const Packed* panel, int8_t* values, int columns) {
                     const float* scales = scales_of(panel, right.columns.depth);
                     for (int j = 0; j < columns; ++j) {
                       int8_t* column = values + j * right.columns.column_stride;
                       for (int64_t k = 0; k < right.columns.depth; ++k) {
                         column[k * right.columns.k_stride] = static_cast<int8_t>(panel[place(k, j)]);
                       }
                       next_scale[j * right.scale_stride] = scales[j];
                     }
                     next_scale += columns * right.scale_stride;
                   });
  }

  // Four k at a time, for all panels.
  static void pack_by_k(const Columns<const float>& right, float* k_scales, void* panels) {
    const int64_t depth = right.depth;
    const auto quantizer_of_k = [&](int64_t k) {
      const PlainRow row = {right.values + k * right.k_stride};
      const Quantizer q = quantizer_of(largest_magnitude_bits(row, right.columns), kSignedLevels);
      k_scales[k] = q.scale;
      return q.inverse;
    };
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
      float inverse[4];
      for (int u = 0; u < 4; ++u) inverse[u] = quantizer_of_k(k + u);
      for_each_panel(right, static_cast<Packed*>(panels), [&](Packed* panel, const float* values, int columns) {
        for (int j = 0; j < Tile::kVectors; ++j) {
          Ints four[4];
#pragma GCC unroll 4
          for (int u = 0; u < 4; ++u) {
            four[u] = nearest(load_columns(values + (k + u) * right.k_stride, columns, j) * broadcast(inverse[u]));
          }
          store_four(panel + place(k, j * Vec::kLanes), four);
        }
      });
    }
    for (; k < kLayout.padded_depth(depth); ++k) {
      const float inverse = k < depth ? quantizer_of_k(k) : 0.0f;
      for_each_panel(right, static_cast<Packed*>(panels), [&](Packed* panel, const float* values, int columns) {
        for (int j = 0; j < Tile::kColumns; ++j) {
          const bool inside = k < depth && j < columns;
          panel[place(k, j)] =
              inside ? static_cast<Packed>(nearest(values[k * right.k_stride + j] * inverse)) : Packed{};
        }
      });
    }
    for_each_panel(right, static_cast<Packed*>(panels), [&](Packed* panel, const float*, int) {
      float* scales = scales_of(panel, depth);
      for (int j = 0; j < Tile::kColumns; ++j) scales[j] = 1.0f;
      finish_panel(panel, depth);
    });
  }

  static constexpr QuantizedRight kTable = {quantize, pack_quantized, unpack_quantized, pack_by_k};
  static constexpr const QuantizedRight* quantized = &kTable;

 private:
  static int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

  static float* scales_of(Packed* panel, int64_t depth) {
    return reinterpret_cast<float*>(reinterpret_cast<char*>(panel) + kLayout.tail_at(depth));
  }
  static const float* scales_of(const Packed* panel, int64_t depth) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(panel) + kLayout.tail_at(depth));
  }

  static void find_scales(const Columns<const float>& right, const float* values, int columns, float* scales,
                          float (&inverse)[Tile::kColumns]) {
    int32_t most[Tile::kColumns] = {};
    if (right.column_stride == 1) {
      Ints vectors[Tile::kVectors];
      for (int j = 0; j < Tile::kVectors; ++j) vectors[j] = zero_ints();
      for (int64_t k = 0; k < right.depth; ++k) {
        const float* row = values + k * right.k_stride;
        for (int j = 0; j < Tile::kVectors; ++j) {
          vectors[j] = max(vectors[j], magnitude_bits(load_columns(row, columns, j)));
        }
      }
      for (int j = 0; j < Tile::kVectors; ++j) store(most + j * Vec::kLanes, vectors[j]);
    } else if (right.k_stride == 1) {
      for (int j = 0; j < columns; ++j)
        most[j] = largest_magnitude_bits(PlainRow{values + j * right.column_stride}, right.depth);
    } else {
      for (int j = 0; j < columns; ++j) {
        for (int64_t k = 0; k < right.depth; ++k) {
          most[j] = larger(most[j], magnitude_bits(values[j * right.column_stride + k * right.k_stride]));
        }
      }
    }
    for (int j = 0; j < Tile::kColumns; ++j) {
      const Quantizer q = quantizer_of(most[j], kSignedLevels);
      scales[j] = q.scale;
      inverse[j] = q.inverse;
    }
  }
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
