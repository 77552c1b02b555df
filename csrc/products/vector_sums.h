// The sums of a product whose vectors are multiplied by one broadcast value of a row at a time, in float32: x86 and
// scalar. A panel's elements are whatever load() widens to a Vec.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// Two vectors wide, and as tall as the registers allow beside two weights and one broadcast. AVX-512, 14 x 32: 28 sums
// + 3 are 31 of 32 registers, and 28 FMAs ask for 16 loads, within what two load ports give to two FMA ports. AVX2, 6 x
// 16: 12 sums + 3 are 15 of 16, and 12 FMAs ask for 8 loads.
struct Tile {
  static constexpr int kVectors = 2;
  static constexpr int kRows = (Vec::kRegisters - kVectors - 1) / kVectors;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = false;
};

// Rows are multiplied where they lie.
constexpr auto kLeftStride = nullptr;
constexpr auto kPackLeft = nullptr;

// Steps of k between two looks ahead. They are not unrolled: no faster, and GCC 12 then spills three sums.
constexpr int kStep = 4;

template <int kRows, class Element>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const float* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  // Rows are reached from every third one (base, base + stride, base + 2 * stride are x86 addressing modes), so the 14
  // rows of the tallest tile cost 5 pointers and one stride, not 14 pointers.
  constexpr int kBases = (kRows + 2) / 3;
  const float* base[kBases];
#pragma GCC unroll 8
  for (int b = 0; b < kBases; ++b) base[b] = x + 3 * b * stride;

  const auto step = [&]() __attribute__((always_inline)) {
    Vec weights[Tile::kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < Tile::kVectors; ++j) weights[j] = load(panel + j * Vec::kLanes);
    panel += Tile::kColumns;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vec value = broadcast(base[i / 3][(i % 3) * stride]);
#pragma GCC unroll 8
      for (int j = 0; j < Tile::kVectors; ++j) sums[i][j] = fma(value, weights[j], sums[i][j]);
    }
#pragma GCC unroll 8
    for (int b = 0; b < kBases; ++b) ++base[b];
  };
  int64_t k = 0;
  for (; k + kStep <= depth; k += kStep) {
    for (ptrdiff_t line = 0; line < ahead_step; line += 64) __builtin_prefetch(ahead + line, 0, 3);
    ahead += ahead_step;
#pragma GCC unroll 1
    for (int u = 0; u < kStep; ++u) step();
  }
  for (; k < depth; ++k) step();
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
