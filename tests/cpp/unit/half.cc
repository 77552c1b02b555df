// Conversions between float32 and float16, lane by lane, against their definition: every float16 there is, and float32
// at, beside and halfway between them.
#include <stdlib.h>

#include "check.h"
#include "simd/vector.h"
#include "unit/main/unit_tests.h"

namespace {

using namespace squeezebert::SQUEEZEBERT_UNIT;

constexpr int kLanes = Vec::kLanes;

double value_of(int bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                      : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                     : ldexp(mantissa, -24);
  return bits & 0x8000 ? -size : size;
}

bool same(float a, double b) { return isnan(b) ? isnan(a) : a == b && signbit(a) == signbit(b); }

void test_load() {
  Half halves[kLanes];
  float y[kLanes];
  for (int bits = 0; bits < 1 << 16; ++bits) {
    for (int i = 0; i < kLanes; ++i) halves[i].bits = static_cast<uint16_t>(bits + 257 * i);
    store(y, load(halves));
    for (int i = 0; i < kLanes; ++i) CHECK(same(y[i], value_of((bits + 257 * i) & 0xffff)));
  }
}

// Both ways to store must make `bits` of x.
void check_stored(float x, int bits) {
  Half one, lanes[kLanes];
  store_one(&one, x);
  store(lanes, broadcast(x));
  const auto right = [&](Half got) { return isnan(x) ? isnan(value_of(got.bits)) : got.bits == bits; };
  CHECK(right(one));
  for (const Half lane : lanes) CHECK(right(lane));
}

void test_store() {
  for (int bits = 0; bits <= 0x7c00; ++bits) {
    // The next above 65504 would be 65536, from which on (and from halfway there) all is infinite.
    const double below = bits == 0x7c00 ? 65536.0 : value_of(bits);
    const double above = bits >= 0x7bff ? 65536.0 : value_of(bits + 1);
    const auto exact = static_cast<float>(below), half_way = static_cast<float>((below + above) / 2);
    for (int sign = 0; sign <= 0x8000; sign += 0x8000) {
      const float s = sign ? -1.0f : 1.0f;
      check_stored(s * exact, sign | bits);
      if (bits == 0x7c00) continue;
      check_stored(s * half_way, sign | (bits % 2 ? bits + 1 : bits));
      check_stored(s * nextafterf(half_way, 0.0f), sign | bits);
      check_stored(s * nextafterf(half_way, INFINITY), sign | (bits + 1));
    }
  }
  check_stored(INFINITY, 0x7c00);
  check_stored(-INFINITY, 0xfc00);
  check_stored(3e38f, 0x7c00);
  check_stored(0x1p-149f, 0);
  check_stored(NAN, 0);
}

}  // namespace

int unit_tests(int, char**) {
  test_load();
  test_store();
  return check_result();
}
