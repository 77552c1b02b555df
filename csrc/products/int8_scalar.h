// int8 in plain C++, for any CPU: the definition, beside products/quantized.h.
#pragma once

#include "products/quantized.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

struct Tile {
  static constexpr int kRows = 4;
  static constexpr int kVectors = 8;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = false;
};
constexpr int kStep = 1;

using Element = int8_t;
using Left = int32_t;  // not int16_t, behind an odd number of which a scale would lie askew
constexpr int kKGroup = 1;
constexpr int kTailBytes = Tile::kColumns * sizeof(float);
constexpr bool kQuantized = true;

struct Prepared {
  using Value = Left;
  static constexpr int kKGroup = SQUEEZEBERT_UNIT::kKGroup;
  static int32_t offset(bool) { return 0; }
  static constexpr int kTogether = 1;
  static void store(Left* to, const Ints (&whole)[1]) { *to = static_cast<Left>(whole[0].v); }
};
constexpr auto kLeftStride = QuantizedLeft<Prepared>::stride;
constexpr auto kPackLeft = QuantizedLeft<Prepared>::pack;

inline void store_four(Element* at, const Ints (&four)[4]) {
  for (int u = 0; u < 4; ++u) at[u * Tile::kColumns] = static_cast<Element>(four[u].v);
}
inline void finish_panel(Element*, int64_t) {}

template <int kRows>
inline void add_products(Ints (&sums)[kRows][Tile::kVectors], const Left* x, ptrdiff_t stride, const Element* panel,
                         int64_t depth, const char*, ptrdiff_t) {
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = zero_ints();
  }
  for (int64_t k = 0; k < depth; ++k, panel += Tile::kColumns) {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j].v += x[i * stride + k] * panel[j];
    }
  }
}

// What `peak` multiplies: a sum plus a product.
struct Multiplied {
  static constexpr int kLanes = 1;
  int32_t v;
};
inline void splat(Multiplied& x, float value) { x.v = static_cast<int32_t>(value * 100.0f); }
inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) {
  asm volatile("" : "+r"(x.v));  // not one product for all
  return {sum.v + x.v * y.v};
}
inline Multiplied operator+(Multiplied a, Multiplied b) { return {a.v + b.v}; }
inline float reduce_add(Multiplied x) { return static_cast<float>(x.v); }

}  // namespace squeezebert::SQUEEZEBERT_UNIT
