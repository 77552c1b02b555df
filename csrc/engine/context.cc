#include "engine/context.h"

#include <stdlib.h>

#include <algorithm>

namespace squeezebert {

void* Buffer::reserve(Size bytes) {
  constexpr int64_t kLine = 64;
  const Size lines = std::max(bytes, Size(1)).rounded_up(kLine);
  if (lines.too_large() || !std::in_range<ptrdiff_t>(lines.count())) {
    fail(SQUEEZEBERT_OUT_OF_MEMORY, "context: could not get more working memory than there are addresses");
    return nullptr;
  }
  const auto rounded = static_cast<size_t>(lines.count());
  if (rounded > bytes_) {
    release();
    if (posix_memalign(&data_, kLine, rounded) != 0) {  // not aligned_alloc: Android has it from API level 28 on
      data_ = nullptr;
      fail(SQUEEZEBERT_OUT_OF_MEMORY, "context: could not get %zu bytes of working memory", rounded);
      return nullptr;
    }
    bytes_ = rounded;
  }
  return data_;
}

void Buffer::release() {
  free(data_);
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace squeezebert
