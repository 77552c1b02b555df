#include "api/overlap.h"

#include <algorithm>

namespace squeezebert {

namespace {

uint64_t begin_of(const Matrix& m) { return reinterpret_cast<uintptr_t>(m.data); }
uint64_t end_of(const Matrix& m) {
  return begin_of(m) + sizeof(float) * static_cast<uint64_t>((m.rows - 1) * m.stride + m.channels);
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// Of rows `channels` wide from 0 on, the last one that begins before `end` is the last one to end; it may be that none
// does.
bool touches(const Matrix& m, int64_t begin, int64_t end) {
  const int64_t row = std::min(m.rows - 1, floor_divide(end - 1, m.stride));
  return row >= 0 && row * m.stride + m.channels > begin;
}

// Row j of b lies where row j + i of a does, moved by the same distance whatever j is; it can meet two neighbours.
bool overlap_same_stride(const Matrix& a, const Matrix& b, int64_t distance) {
  const int64_t last = floor_divide(distance + b.channels - 1, a.stride);
  for (const int64_t i : {last, last - 1}) {
    if (i * a.stride + a.channels > distance && i < a.rows && i + b.rows > 0) return true;
  }
  return false;
}

}  // namespace

bool overlap(const Matrix& a, const Matrix& b) {
  if (a.rows == 0 || b.rows == 0) return false;
  if (end_of(a) <= begin_of(b) || end_of(b) <= begin_of(a)) return false;
  if (a.rows < b.rows) return overlap(b, a);
  const auto bytes = static_cast<int64_t>(begin_of(b) - begin_of(a));
  const int64_t distance = bytes / static_cast<int64_t>(sizeof(float));
  if (a.stride == b.stride) return overlap_same_stride(a, b, distance);
  for (int64_t row = 0; row < b.rows; ++row) {
    const int64_t begin = distance + row * b.stride;
    if (touches(a, begin, begin + b.channels)) return true;
  }
  return false;
}

}  // namespace squeezebert
