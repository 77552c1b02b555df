// The vector type and its functions against plain loops over their lanes: what kernels may count on, on every ISA.
#include <stdlib.h>

#include "check.h"
#include "simd/row.h"
#include "unit/main/unit_tests.h"

namespace {

using namespace squeezebert::SQUEEZEBERT_UNIT;

constexpr int kLanes = Vec::kLanes;

// Any floats with different magnitudes and signs.
void fill(float* x, int n, int seed) {
  for (int i = 0; i < n; ++i) x[i] = ldexpf(static_cast<float>((i * 37 + seed * 11) % 61) - 30.25f, (i + seed) % 5 - 2);
}

void test_arithmetic() {
  float a[kLanes], b[kLanes], c[kLanes], y[kLanes];
  fill(a, kLanes, 1);
  fill(b, kLanes, 2);
  fill(c, kLanes, 3);
  const Vec va = load(a), vb = load(b), vc = load(c);
  const auto check = [&](Vec got, float (*expected)(float, float, float)) {
    store(y, got);
    for (int i = 0; i < kLanes; ++i) CHECK(y[i] == expected(a[i], b[i], c[i]));
  };
  check(va + vb, [](float p, float q, float) { return p + q; });
  check(va - vb, [](float p, float q, float) { return p - q; });
  check(va * vb, [](float p, float q, float) { return p * q; });
  check(fma(va, vb, vc), [](float p, float q, float r) { return fmaf(p, q, r); });
  check(fnma(va, vb, vc), [](float p, float q, float r) { return fmaf(-p, q, r); });
  check(min(va, vb), [](float p, float q, float) { return p < q ? p : q; });
  check(max(va, vb), [](float p, float q, float) { return p > q ? p : q; });
  check(abs(va), [](float p, float, float) { return fabsf(p); });
  check(zero(), [](float, float, float) { return 0.0f; });
  check(broadcast(1.5f), [](float, float, float) { return 1.5f; });
}

// 1 + 2^-23 squared is 1 + 2^-22 + 2^-46: only one rounding leaves the last term.
void test_fused() {
  float y[kLanes];
  const Vec x = broadcast(1.0f + 0x1p-23f);
  store(y, fma(x, x, broadcast(-1.0f - 0x1p-22f)));
  for (float lane : y) CHECK(lane == 0x1p-46f);
  store(y, fnma(x, x, broadcast(1.0f + 0x1p-22f)));
  for (float lane : y) CHECK(lane == -0x1p-46f);
}

void test_nan() {
  float y[kLanes];
  store(y, max(broadcast(-1.0f), broadcast(NAN)));
  for (float lane : y) CHECK(isnan(lane));
  store(y, min(broadcast(1.0f), broadcast(NAN)));
  for (float lane : y) CHECK(isnan(lane));
}

void test_partial() {
  float x[kLanes];
  fill(x, kLanes, 4);
  for (int n = 0; n <= kLanes; ++n) {
    // Exactly n floats, so that a memory checker sees a read or a write past them.
    float* exact = static_cast<float*>(malloc(n * sizeof(float) + 1));
    memcpy(exact, x, n * sizeof(float));
    float y[kLanes];
    store(y, load_partial(exact, n));
    for (int i = 0; i < kLanes; ++i) CHECK(y[i] == (i < n ? x[i] : 0.0f));
    store_partial(exact, load(x) + load(x), n);
    for (int i = 0; i < n; ++i) CHECK(exact[i] == 2.0f * x[i]);
    free(exact);

    for (float& lane : y) lane = -1.0f;
    store_partial(y, load(x), n);
    for (int i = 0; i < kLanes; ++i) CHECK(y[i] == (i < n ? x[i] : -1.0f));
  }
}

void test_exponent() {
  float n[kLanes], y[kLanes];
  for (int i = -189; i <= 64; ++i) {
    const float parts[] = {-0.5f, -0.4f, 0.0f, 0.4f, 0.5f};
    for (const float part : parts) {
      const float u = static_cast<float>(i) + part, nearest = nearbyintf(u);  // the even one of two
      if (nearest < -189.0f || nearest > 64.0f) continue;
      const Exponent exponent = nearest_exponent(broadcast(u));
      store(n, exponent.n);
      store(y, scale(broadcast(1.2500001f), exponent));
      for (int lane = 0; lane < kLanes; ++lane) {
        CHECK(n[lane] == nearest && y[lane] == ldexpf(1.2500001f, static_cast<int>(nearest)));
      }
    }
  }
  // Lanes do not share an exponent; NaN stays in its own.
  float x[kLanes], power[kLanes];
  fill(x, kLanes, 5);
  for (int i = 0; i < kLanes; ++i) power[i] = static_cast<float>(7 * i - 50);
  if (kLanes > 1) x[1] = power[1] = NAN;
  store(y, scale(load(x), nearest_exponent(load(power))));
  for (int i = 0; i < kLanes; ++i) CHECK(i == 1 ? isnan(y[i]) : y[i] == ldexpf(x[i], 7 * i - 50));
}

void test_reduce() {
  float x[kLanes];
  double sum = 0.0;
  float largest = -INFINITY;
  fill(x, kLanes, 6);
  for (float lane : x) {
    sum += lane;
    largest = lane > largest ? lane : largest;
  }
  CHECK_NEAR(reduce_add(load(x)), sum, 1e-4);
  CHECK(reduce_max(load(x)) == largest);
  for (int i = 0; i < kLanes; ++i) {  // every lane counts
    for (int j = 0; j < kLanes; ++j) x[j] = i == j ? 3.0f : -1.0f;
    CHECK(reduce_add(load(x)) == 4.0f - kLanes);
    CHECK(reduce_max(load(x)) == 3.0f);
  }
}

void test_ints() {
  float x[kLanes];
  int32_t bits[kLanes], got[kLanes];
  // To nearest, ties to even; NaN leaves nothing in the last 16 bits.
  for (int i = -600; i <= 600; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = static_cast<float>(i + lane) / 4.0f;
    store(got, nearest(load(x)));
    for (int lane = 0; lane < kLanes; ++lane) CHECK(got[lane] == static_cast<int32_t>(nearbyintf(x[lane])));
  }
  const float nans[] = {NAN, -NAN};
  for (const float nan : nans) {
    store(got, nearest(broadcast(nan)));
    for (const int32_t lane : got) CHECK((lane & 0xffff) == 0);
  }
  const float special[] = {0.0f, -0.0f, 1e-45f, -1e-45f, 1.0f, -1.5f, 3.4028234664e38f, -INFINITY, NAN};
  for (const float value : special) {
    const float magnitude = fabsf(value);
    memcpy(bits, &magnitude, sizeof magnitude);
    store(got, magnitude_bits(broadcast(value)));
    for (const int32_t lane : got) CHECK(lane == bits[0]);
  }
  // Sums beyond 2^24 are rounded to even; bytes and halves are joined from the first upward, each lane by itself.
  const int32_t wholes[] = {0, -127, 16777217, 16777219, -16777217, -16777219, 2147483520, -2147483647 - 1};
  for (const int32_t whole : wholes) {
    for (int lane = 0; lane < kLanes; ++lane) bits[lane] = whole + lane % 2;
    store(x, to_floats(load(bits)));
    for (int lane = 0; lane < kLanes; ++lane) CHECK(x[lane] == static_cast<float>(bits[lane]));
  }
  Ints four[4], two[2];
  for (int u = 0; u < 4; ++u) {
    for (int lane = 0; lane < kLanes; ++lane) bits[lane] = (lane + u) % 3 ? 90 * u - 127 - lane : 255;
    four[u] = load(bits);
    if (u < 2) two[u] = four[u];
  }
  int32_t of_two[kLanes];
  store(got, join(four));
  store(of_two, join(two));
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int u = 0; u < 4; ++u) {
      const uint32_t value = static_cast<uint32_t>((lane + u) % 3 ? 90 * u - 127 - lane : 255);
      CHECK((static_cast<uint32_t>(got[lane]) >> 8 * u & 0xff) == (value & 0xff));
      if (u < 2) CHECK((static_cast<uint32_t>(of_two[lane]) >> 16 * u & 0xffff) == (value & 0xffff));
    }
  }
  for (int i = 0; i < kLanes; ++i) {  // every lane counts
    for (int lane = 0; lane < kLanes; ++lane) bits[lane] = i == lane ? 7 : -5;
    CHECK(reduce_max(load(bits)) == 7);
    store(got, max(load(bits), load(bits) + load(bits)));
    for (int lane = 0; lane < kLanes; ++lane) CHECK(got[lane] == (i == lane ? 14 : -5));
  }
  store(got, zero_ints());
  for (const int32_t lane : got) CHECK(lane == 0);
}

void test_load_transposed() {
  constexpr int kStride = 7;
  float x[kLanes * kStride], y[kLanes];
  fill(x, kLanes * kStride, 7);
  Vec columns[4];
  load_transposed(x, kStride, columns);
  for (int u = 0; u < 4; ++u) {
    store(y, columns[u]);
    for (int i = 0; i < kLanes; ++i) CHECK(y[i] == x[i * kStride + u]);
  }
}

// Sums of every length, and one order of addition for all instruction sets: 64 lanes, then the tree of simd/row.h.
void test_sum_over() {
  constexpr int kMost = 200;
  float x[kMost];
  fill(x, kMost, 8);
  for (int count = 0; count <= kMost; ++count) {
    float lanes[64] = {};
    for (int i = 0; i < count; ++i) lanes[i % 64] += x[i];
    float tree[16];
    for (int i = 0; i < 16; ++i) tree[i] = (lanes[i] + lanes[i + 16]) + (lanes[i + 32] + lanes[i + 48]);
    for (int half = 8; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) tree[i] += tree[i + half];
    }
    const auto add = [&](int64_t c, int n, Vec sum) { return sum + load_some(x + c, n); };
    CHECK(sum_over([](Vec sum) { return sum; }, count, add) == tree[0]);
  }
}

// Numbers whose product and sum round differently in one rounding and in two, at the ends of the exponents too.
void test_fused_everywhere() {
  uint32_t seed = 1;
  const auto any = [&](int exponents) {
    seed = seed * 1664525u + 1013904223u;
    const float mantissa = static_cast<float>(seed >> 8) + 0x1p24f;
    seed = seed * 1664525u + 1013904223u;
    return ldexpf(seed >> 31 ? -mantissa : mantissa, static_cast<int>((seed >> 8) % exponents) - exponents / 2 - 24);
  };
  for (int i = 0; i < 20000; ++i) {
    const int exponents = i % 2 ? 30 : 250;
    const float a = any(exponents), b = any(exponents);
    const float c = i % 3 ? any(exponents) : -a * b;  // cancels but for the product's rounding
    float y[kLanes];
    store(y, fma(broadcast(a), broadcast(b), broadcast(c)));
    const float expected = fmaf(a, b, c);
    for (float lane : y) CHECK(memcmp(&lane, &expected, sizeof lane) == 0 || (isnan(lane) && isnan(expected)));
  }
}

}  // namespace

int unit_tests(int, char**) {
  test_arithmetic();
  test_fused();
  test_nan();
  test_partial();
  test_exponent();
  test_reduce();
  test_ints();
  test_load_transposed();
  test_sum_over();
  test_fused_everywhere();
  return check_result();
}
