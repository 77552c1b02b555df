// Sizes that cannot wrap: every number of floats or bytes that is planned from the sizes of a call.
#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <utility>

namespace squeezebert {

// A count from 0 up to 2^63 - 2. What would be more stays "too large" in all that is computed from it, until whoever
// gets the memory (Buffer::reserve) refuses it.
class Size {
 public:
  constexpr Size() = default;
  constexpr Size(std::integral auto count) : count_(std::in_range<int64_t>(count) ? count : kTooLarge) {}

  constexpr bool too_large() const { return count_ == kTooLarge; }
  // Of a size that is not too large.
  constexpr int64_t count() const { return count_; }

  friend constexpr Size operator+(Size a, Size b) {
    int64_t sum = 0;
    return __builtin_add_overflow(a.count_, b.count_, &sum) ? Size(kTooLarge) : Size(sum);
  }
  friend constexpr Size operator*(Size a, Size b) {
    int64_t product = 0;
    return __builtin_mul_overflow(a.count_, b.count_, &product) ? Size(kTooLarge) : Size(product);
  }
  constexpr Size rounded_up(int64_t multiple) const {
    const Size more = *this + (multiple - 1);
    return more.too_large() ? more : Size(more.count_ / multiple * multiple);
  }
  friend constexpr auto operator<=>(Size, Size) = default;

 private:
  static constexpr int64_t kTooLarge = INT64_MAX;
  int64_t count_ = 0;
};

}  // namespace squeezebert
