// Conversions between float32 and the 16-bit formats, lane by lane, against their definition: every number that a
// format has, and float32 at, beside and halfway between them.
#include <stdlib.h>

#include "check.h"
#include "simd/vector.h"
#include "unit/main/unit_tests.h"

namespace {

using namespace squeezebert::SQUEEZEBERT_UNIT;

constexpr int kLanes = Vec::kLanes;

// IEEE 754's interchange format of 16 bits with so many of mantissa.
template <class Element>
constexpr int kMantissa = 0;
template <>
constexpr int kMantissa<Half> = 10;
template <>
constexpr int kMantissa<BFloat16> = 7;

template <class Element>
constexpr int kInfinity = 0x8000 - (1 << kMantissa<Element>);

template <class Element>
double value_of(int bits) {
  constexpr int kUnits = 1 << kMantissa<Element>, kExponents = 0x8000 / kUnits;
  constexpr int kLeast = 2 - kExponents / 2 - kMantissa<Element>;  // the exponent of a denormal's last place
  const int exponent = bits / kUnits % kExponents, mantissa = bits % kUnits;
  const double size = exponent == kExponents - 1 ? (mantissa ? NAN : INFINITY)
                      : exponent                 ? ldexp(kUnits + mantissa, exponent - 1 + kLeast)
                                                 : ldexp(mantissa, kLeast);
  return bits & 0x8000 ? -size : size;
}

bool same(float a, double b) { return isnan(b) ? isnan(a) : a == b && signbit(a) == signbit(b); }

template <class Element>
void test_load() {
  Element elements[kLanes];
  float y[kLanes];
  for (int bits = 0; bits < 1 << 16; ++bits) {
    for (int i = 0; i < kLanes; ++i) elements[i].bits = static_cast<uint16_t>(bits + 257 * i);
    store(y, load(elements));
    for (int i = 0; i < kLanes; ++i) CHECK(same(y[i], value_of<Element>((bits + 257 * i) & 0xffff)));
  }
}

// Both ways to store must make `bits` of x.
template <class Element>
void check_stored(float x, int bits) {
  Element one, lanes[kLanes];
  store_one(&one, x);
  store(lanes, broadcast(x));
  const auto right = [&](Element got) { return isnan(x) ? isnan(value_of<Element>(got.bits)) : got.bits == bits; };
  CHECK(right(one));
  for (const Element lane : lanes) CHECK(right(lane));
}

template <class Element>
void test_store() {
  constexpr int kMost = kInfinity<Element> - 1;
  for (int bits = 0; bits <= kMost; ++bits) {
    // From halfway to the number that would come after the largest, all is infinite.
    const double below = value_of<Element>(bits);
    const double above = bits < kMost ? value_of<Element>(bits + 1) : 2 * below - value_of<Element>(bits - 1);
    const auto exact = static_cast<float>(below), half_way = static_cast<float>((below + above) / 2);
    for (int sign = 0; sign <= 0x8000; sign += 0x8000) {
      const float s = sign ? -1.0f : 1.0f;
      check_stored<Element>(s * exact, sign | bits);
      check_stored<Element>(s * half_way, sign | (bits % 2 ? bits + 1 : bits));
      check_stored<Element>(s * nextafterf(half_way, 0.0f), sign | bits);
      check_stored<Element>(s * nextafterf(half_way, INFINITY), sign | (bits + 1));
    }
  }
  check_stored<Element>(INFINITY, kInfinity<Element>);
  check_stored<Element>(-INFINITY, kInfinity<Element> | 0x8000);
  check_stored<Element>(3.4e38f, kInfinity<Element>);
  check_stored<Element>(0x1p-149f, 0);
  // A NaN whose mantissa has no bit but those that do not fit, and one that rounding up would carry into the sign.
  const uint32_t nans[] = {0x7f800001, 0xff80ffff, 0x7fffffff, 0xffffffff};
  for (const uint32_t nan : nans) {
    float x;
    memcpy(&x, &nan, sizeof x);
    check_stored<Element>(x, 0);
  }
}

}  // namespace

int unit_tests(int, char**) {
  test_load<Half>();
  test_store<Half>();
  test_load<BFloat16>();
  test_store<BFloat16>();
  return check_result();
}
