// What int8's products on NEON have in common: rows prepared as bytes, panels of 8 columns with their scales and sums.
// All instructions multiply signed bytes by signed bytes, so rows of 0 to 255 are prepared less 128, and 128 times a
// column's sum makes up for that.
#pragma once

#include "products/quantized.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

using Element = int8_t;
using Left = int8_t;
constexpr int kPanelColumns = 8;
constexpr int kTailBytes = kPanelColumns * (sizeof(float) + sizeof(int32_t));  // scales, sums
constexpr bool kQuantized = true;
constexpr int32_t kUnsignedOffset = -128;

template <int kGroup>
struct PreparedBytes {
  using Value = Left;
  static constexpr int kKGroup = kGroup;
  static int32_t offset(bool non_negative) { return non_negative ? kUnsignedOffset : 0; }
  static constexpr int kTogether = 4;
  static void store(Left* to, const Ints (&whole)[4]) {
    const int16x8_t low = vcombine_s16(vmovn_s32(whole[0].v), vmovn_s32(whole[1].v));
    const int16x8_t high = vcombine_s16(vmovn_s32(whole[2].v), vmovn_s32(whole[3].v));
    vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
  }
};

// The sums of a panel's columns, behind their scales.
template <int kGroup>
inline void add_up_columns(Element* panel, int64_t depth) {
  const int64_t padded = (depth + kGroup - 1) / kGroup * kGroup;
  auto* sums = reinterpret_cast<int32_t*>(panel + padded * kPanelColumns) + kPanelColumns;
  for (int j = 0; j < kPanelColumns; ++j) {
    int32_t sum = 0;
    for (int64_t k = 0; k < padded; k += kGroup) {
      for (int u = 0; u < kGroup; ++u) sum += panel[k * kPanelColumns + j * kGroup + u];
    }
    sums[j] = sum;
  }
}

// Rows that were prepared less 128 get what they lack; those of a block are all of one kind.
template <int kGroup, int kRows>
inline __attribute__((always_inline)) void restore_offset(Ints (&sums)[kRows][2], const Left* x, const Element* panel,
                                                          int64_t depth) {
  const int64_t padded = (depth + kGroup - 1) / kGroup * kGroup;
  LeftTail tail;
  memcpy(&tail, x + padded, sizeof tail);
  if (tail.offset == 0) return;
  const auto* of_columns = reinterpret_cast<const int32_t*>(panel + padded * kPanelColumns) + kPanelColumns;
  for (int j = 0; j < 2; ++j) {
    const Ints lacking = {vmulq_n_s32(load(of_columns + j * Vec::kLanes).v, -tail.offset)};
    for (int i = 0; i < kRows; ++i) sums[i][j] = sums[i][j] + lacking;
  }
}

// What `peak` multiplies: a sum plus four products a lane. The product's own instruction is multiply_bytes.
struct Multiplied {
  static constexpr int kLanes = 4 * Vec::kLanes;
  int32x4_t v;
};
inline void splat(Multiplied& x, float value) {
  x.v = vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(value * 100.0f)));
}
inline Multiplied operator+(Multiplied a, Multiplied b) { return {vaddq_s32(a.v, b.v)}; }
inline float reduce_add(Multiplied x) { return reduce_add(to_floats(Ints{x.v})); }

}  // namespace squeezebert::SQUEEZEBERT_UNIT
