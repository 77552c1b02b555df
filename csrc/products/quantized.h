// int8, defined: how rows and columns of float32 become whole numbers, the same on every instruction set.
//
//   m = the largest magnitude, L = 127, or 255 for a left row known to be non-negative
//   scale = m / L, inverse = L / m; value = x * inverse to the nearest whole number, the even one of two
//   m < 2^-100: scale = 0, all values 0.  NaN or infinity among them: scale = NaN, all values 0.
//
// |value| <= L without a clamp: m * inverse is within two roundings of L. A product of a row and a column is then
//
//   y = fma(float(sum of value * value) * row scale, column scale, start)                          (products/tile.h)
//
// of which the sum is exact: 65536 * 255 * 128 < 2^31 (engine/pack.h refuses more).
#pragma once

#include <stdint.h>
#include <string.h>

#include "products/product.h"
#include "simd/row.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

constexpr float kSignedLevels = 127.0f;
constexpr float kUnsignedLevels = 255.0f;

struct Quantizer {
  float scale = 0.0f;
  float inverse = 0.0f;  // 0 where all values are to be 0: 0 * infinity is NaN, of which nearest() makes a 0
};

inline Quantizer quantizer_of(int32_t largest_magnitude_bits, float levels) {
  constexpr int32_t kSmallest = (127 - 100) << 23, kInfinity = 0x7f800000;  // 2^-100
  if (largest_magnitude_bits >= kInfinity) return {.scale = __builtin_nanf("")};
  if (largest_magnitude_bits < kSmallest) return {};
  float largest;
  memcpy(&largest, &largest_magnitude_bits, sizeof largest);
  return {.scale = largest / levels, .inverse = levels / largest};
}

inline int32_t magnitude_bits(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffff;
}

// As nearest() of a vector, with 0 for NaN: adding 1.5 * 2^23 rounds, and leaves the number in the sum's last bits.
inline int32_t nearest(float x) {
  constexpr int32_t kShiftBits = 0x4b400000;
  const float sum = x + 0x1.8p23f;
  int32_t bits;
  memcpy(&bits, &sum, sizeof bits);
  return x == x ? bits - kShiftBits : 0;
}

// A row as it is to be quantized: as it lies, or multiplied by a scale for each k.
struct PlainRow {
  const float* values;
  float at(int64_t k) const { return values[k]; }
  Vec vector(int64_t k) const { return load(values + k); }
  Vec partial(int64_t k, int n) const { return load_partial(values + k, n); }
};
struct ScaledRow {
  const float* values;
  const float* scales;
  float at(int64_t k) const { return values[k] * scales[k]; }
  Vec vector(int64_t k) const { return load(values + k) * load(scales + k); }
  Vec partial(int64_t k, int n) const { return load_partial(values + k, n) * load_partial(scales + k, n); }
};

// Several maxima, so that none waits for the one before it.
template <class Row>
inline int32_t largest_magnitude_bits(const Row& row, int64_t count) {
  constexpr int kLanes = Vec::kLanes, kMaxima = 4;
  Ints most[kMaxima];
  for (int u = 0; u < kMaxima; ++u) most[u] = zero_ints();
  int64_t c = 0;
  for (; c + kMaxima * kLanes <= count; c += kMaxima * kLanes) {
#pragma GCC unroll 4
    for (int u = 0; u < kMaxima; ++u) most[u] = max(most[u], magnitude_bits(row.vector(c + u * kLanes)));
  }
  for (; c + kLanes <= count; c += kLanes) most[0] = max(most[0], magnitude_bits(row.vector(c)));
  if (c < count) most[1] = max(most[1], magnitude_bits(row.partial(c, static_cast<int>(count - c))));
  return reduce_max(max(max(most[0], most[1]), max(most[2], most[3])));
}

// What follows the values of a prepared row.
struct LeftTail {
  float scale;
  int32_t offset;  // was added to every value of the row
};

// The left side of a product. `Prepared`, its own, has Value, the type of a prepared value; kKGroup, of which depth is
// filled up to a multiple; offset(non_negative), which is added to the values of such a row; and store(to, whole),
// which stores kTogether vectors of them.
template <class Prepared>
struct QuantizedLeft {
  using Value = typename Prepared::Value;

  static int64_t values_bytes(int64_t depth) {
    constexpr int kKGroup = Prepared::kKGroup;
    return (depth + kKGroup - 1) / kKGroup * kKGroup * static_cast<int64_t>(sizeof(Value));
  }
  // Rows an odd number of cache lines apart, so that those of a block do not all fall on the same cache sets.
  static int64_t stride(int64_t depth) {
    return ((values_bytes(depth) + static_cast<int64_t>(sizeof(LeftTail)) + 63) / 64 | 1) * 64;
  }
  static void pack(const LeftRows& a, void* left) {
    char* to = static_cast<char*>(left);
    for (int64_t r = 0; r < a.rows; ++r, to += stride(a.depth)) {
      const float* from = a.values + r * a.stride;
      if (a.k_scales) {
        pack_row(ScaledRow{from, a.k_scales}, a, to);
      } else {
        pack_row(PlainRow{from}, a, to);
      }
    }
  }

 private:
  static constexpr int kLanes = Vec::kLanes, kTogether = Prepared::kTogether, kStep = kTogether * kLanes;
  static_assert(kStep * sizeof(Value) <= 64, "a store past the last value stays within the row");

  // Stores reach past the last value: what follows it is stored afterwards.
  template <class Row>
  static void store(Value* to, const Row& row, int64_t depth, float inverse, int32_t offset) {
    const Vec factor = broadcast(inverse);
    const Ints added = broadcast_int(offset);
    Ints whole[kTogether];
    int64_t k = 0;
    for (; k + kStep <= depth; k += kStep) {
#pragma GCC unroll 4
      for (int u = 0; u < kTogether; ++u) whole[u] = nearest(row.vector(k + u * kLanes) * factor) + added;
      Prepared::store(to + k, whole);
    }
    if (k == depth) return;
    for (int u = 0; u < kTogether; ++u) {
      const int64_t left = depth - k - u * kLanes;
      const Vec x = left >= kLanes ? row.vector(k + u * kLanes)
                    : left > 0     ? row.partial(k + u * kLanes, static_cast<int>(left))
                                   : zero();
      whole[u] = nearest(x * factor) + added;
    }
    Prepared::store(to + k, whole);
  }

  template <class Row>
  static void pack_row(const Row& row, const LeftRows& a, char* to) {
    const float levels = a.non_negative ? kUnsignedLevels : kSignedLevels;
    const Quantizer q = quantizer_of(largest_magnitude_bits(row, a.depth), levels);
    const LeftTail tail = {.scale = q.scale, .offset = Prepared::offset(a.non_negative)};
    store(reinterpret_cast<Value*>(to), row, a.depth, q.inverse, tail.offset);
    memcpy(to + values_bytes(a.depth), &tail, sizeof tail);
  }
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
