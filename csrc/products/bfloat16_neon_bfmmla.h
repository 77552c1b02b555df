// bfloat16 on NEON with Armv8.6's products of matrices (bf16): BFMMLA, 2 x 2 sums of 4 products each. Rows are rounded
// to bfloat16 once for all panels, by pack_left; sums and results are float32.
//
// The instruction takes denormals for zeros and rounds sums in its own way, so results do not have the bits of the
// products that widen. Neoverse V1, N2 and V2 start as many of it as FMLAs, with four times the products; others do not
// gain: isa/list.inc chooses it on the former only.
#pragma once

#include "products/neon_blocks.h"
#include "products/product.h"
#include "simd/bfloat16.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = BFloat16;
using Left = BFloat16;
constexpr int kKGroup = 4;
constexpr int kStep = 8;
constexpr int kTailBytes = 0;
constexpr bool kQuantized = false;

inline int64_t padded_bytes(int64_t depth) { return (depth + kKGroup - 1) / kKGroup * kBlockBytes; }

// Rows an odd number of cache lines apart, so that those of a block do not all fall on the same cache sets.
inline int64_t left_stride(int64_t depth) { return ((padded_bytes(depth) + 63) / 64 | 1) * 64; }
constexpr auto kLeftStride = left_stride;

inline void pack_left(const LeftRows& a, void* left) {
  const int64_t stride = left_stride(a.depth);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* from = a.values + r * a.stride;
    auto* to = reinterpret_cast<Left*>(static_cast<char*>(left) + r * stride);
    int64_t k = 0;
    for (; k + Vec::kLanes <= a.depth; k += Vec::kLanes) {
      uint16x4_t rounded;
      asm("bfcvtn %0.4h, %1.4s" : "=w"(rounded) : "w"(load(from + k).v));
      vst1_u16(&to[k].bits, rounded);
    }
    if (k < a.depth) store(to + k, load_partial(from + k, static_cast<int>(a.depth - k)));
  }
  pair_rows(static_cast<char*>(left), a.rows, stride, padded_bytes(a.depth));
}
constexpr auto kPackLeft = pack_left;

// Four k of four columns.
inline void store_four(Element* at, const Vec (&four)[4]) {
  uint16x4x4_t rounded;
#pragma GCC unroll 4
  for (int u = 0; u < 4; ++u) rounded.val[u] = rounded_to_bfloat16(four[u]);
  vst4_u16(&at->bits, rounded);
}

inline __attribute__((always_inline)) Vec multiply_block(Vec block, int8x16_t rows, int8x16_t columns) {
  asm volatile("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(block.v) : "w"(rows), "w"(columns));
  return block;
}

// Four products a lane: what `peak` multiplies.
struct Multiplied {
  static constexpr int kLanes = 4 * Vec::kLanes;
  float32x4_t v;
};
inline void splat(Multiplied& x, float value) {
  BFloat16 lane;
  store_one(&lane, value);
  x.v = vreinterpretq_f32_u16(vld1q_dup_u16(&lane.bits));
}
inline Multiplied fma(Multiplied sum, Multiplied x, Multiplied y) {
  asm volatile("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(sum.v) : "w"(x.v), "w"(y.v));
  return sum;
}
inline Multiplied operator+(Multiplied a, Multiplied b) { return {vaddq_f32(a.v, b.v)}; }
inline float reduce_add(Multiplied x) { return reduce_add(Vec{x.v}); }

template <int kRows>
inline __attribute__((always_inline)) void add_products(Vec (&sums)[kRows][Tile::kVectors], const Left* x,
                                                        ptrdiff_t stride, const Element* panel, int64_t depth,
                                                        const char* ahead, ptrdiff_t ahead_step) {
  Blocks::run<kRows>(sums, x, stride * static_cast<ptrdiff_t>(sizeof(Left)), panel, padded_bytes(depth), ahead,
                     ahead_step);
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
