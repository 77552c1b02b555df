// exp, gelu and its slope against double precision, over floats of every exponent and both signs. `test_math_<isa> 1`
// looks at all 2^32 of them (a minute or two); the default looks at one in 1009. The bounds are those found by looking
// at all.
#include <float.h>
#include <stdint.h>
#include <stdlib.h>

#include "check.h"
#include "math/exp.h"
#include "math/gelu.h"
#include "math/gelu_slope.h"
#include "unit/main/unit_tests.h"

namespace {

using namespace squeezebert::SQUEEZEBERT_UNIT;

// A full set of lanes, whatever the ISA has.
constexpr int kBatch = 64;

float float_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// The distance of neighbouring floats at y, the smallest denormal's at 0.
double ulp(double y) {
  int exponent;
  frexp(y, &exponent);
  return ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

double exact_gelu(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }

template <Vec (*kFunction)(Vec)>
float at(float x) {
  float lanes[kBatch];
  for (float& lane : lanes) lane = x;
  store(lanes, kFunction(load(lanes)));
  return lanes[0];
}

struct Worst {
  double error = 0.0;
  float x = 0.0f;

  void see(double error_at_x, float at_x) {
    if (error_at_x > error || isnan(error_at_x)) error = error_at_x, x = at_x;
  }
};

// Calls see(x, kFunction(x)) for every stride-th float but infinities and NaN.
template <Vec (*kFunction)(Vec), typename See>
void sweep(uint64_t stride, See see) {
  float x[kBatch];
  float y[kBatch];
  for (uint64_t bits = 0; bits < UINT64_C(1) << 32;) {
    for (float& lane : x) {
      lane = float_of_bits(static_cast<uint32_t>(bits));
      bits += stride;
    }
    for (int i = 0; i < kBatch; i += Vec::kLanes) store(y + i, kFunction(load(x + i)));
    for (int i = 0; i < kBatch; ++i) {
      if (isfinite(x[i])) see(x[i], y[i]);
    }
  }
}

void test_exp(uint64_t stride) {
  Worst absolute;
  Worst relative;  // in ULP, less the 1.25 |x| that the header grants
  sweep<exp>(stride, [&](float x, float y) {
    if (x > 0.0f) return;
    const double exact = ::exp(static_cast<double>(x));
    absolute.see(fabs(y - exact), x);
    relative.see(fabs(y - exact) / ulp(exact) - 1.25 * fabs(x), x);
  });
  printf("exp: %.3g at %a, 1.25 |x| + %.3f ULP at %a\n", absolute.error, absolute.x, relative.error, relative.x);
  CHECK(absolute.error < 1.2e-7);
  CHECK(relative.error < 1.8);

  CHECK(at<exp>(0.0f) == 1.0f);
  CHECK(at<exp>(-0.0f) == 1.0f);
  CHECK(at<exp>(-104.0f) == 0.0f);
  CHECK(at<exp>(-FLT_MAX) == 0.0f);
  CHECK(at<exp>(-INFINITY) == 0.0f);
  CHECK(isnan(at<exp>(NAN)));
}

void test_gelu(uint64_t stride) {
  Worst absolute;
  Worst relative;
  Worst past_bound;
  sweep<gelu>(stride, [&](float x, float y) {
    if (fabsf(x) >= 8.0f) return past_bound.see(y == (x > 0.0f ? x : 0.0f) ? 0.0 : INFINITY, x);
    const double exact = exact_gelu(x);
    const double error = fabs(y - exact);
    // The result's own rounding, half an ULP, would hide what gelu adds to it where x is large.
    absolute.see(error - 0.5 * ulp(exact), x);
    if (fabsf(x) >= 0x1p-120f) relative.see(error / fabsf(x), x);
  });
  printf("gelu: absolute %.3g at %a; relative to x %.3g at %a\n", absolute.error, absolute.x, relative.error,
         relative.x);
  CHECK(absolute.error < 1.8e-7);
  CHECK(relative.error < 3e-7);
  CHECK(past_bound.error == 0.0);

  CHECK(at<gelu>(0.0f) == 0.0f);
  CHECK(at<gelu>(-0.0f) == 0.0f);
  const float denormals[] = {0x1p-149f, -0x1p-148f, 0x1.8p-140f, -0x1.23456p-127f, 0x1p-126f};
  for (const float x : denormals) {  // none is flushed to zero: they give x / 2
    CHECK_NEAR(at<gelu>(x), 0.5 * x, 0x1p-149 + 3e-7 * fabs(x));
  }
  CHECK(at<gelu>(100.0f) == 100.0f);
  CHECK(at<gelu>(-100.0f) == 0.0f);
  CHECK(isnan(at<gelu>(INFINITY)));
  CHECK(isnan(at<gelu>(-INFINITY)));
  CHECK(isnan(at<gelu>(NAN)));
}

Vec gelu_slope(Vec x) { return gelu_and_slope(x).slope; }

void test_gelu_slope(uint64_t stride) {
  Worst absolute;
  sweep<gelu_slope>(stride, [&](float x, float y) {
    const double density = ::exp(-0.5 * x * x) * 0.39894228040143267794;
    absolute.see(fabs(y - (0.5 * erfc(-x * 0.70710678118654752440) + x * density)), x);
  });
  printf("gelu slope: absolute %.3g at %a\n", absolute.error, absolute.x);
  CHECK(absolute.error < 3.5e-7);

  CHECK_NEAR(at<gelu_slope>(0.0f), 0.5, 3.5e-7);
  CHECK_NEAR(at<gelu_slope>(-0.0f), 0.5, 3.5e-7);
  CHECK(at<gelu_slope>(FLT_MAX) == 1.0f);
  CHECK(at<gelu_slope>(-FLT_MAX) == 0.0f);
  CHECK(isnan(at<gelu_slope>(INFINITY)));
  CHECK(isnan(at<gelu_slope>(-INFINITY)));
  CHECK(isnan(at<gelu_slope>(NAN)));
}

}  // namespace

int unit_tests(int argc, char** argv) {
  const uint64_t stride = argc > 1 ? strtoull(argv[1], nullptr, 10) : 1009;
  test_exp(stride);
  test_gelu(stride);
  test_gelu_slope(stride);
  return check_result();
}
