#include "engine/context.h"

#include <stdlib.h>

namespace squeezebert {

void* Buffer::reserve(size_t bytes) {
  if (bytes > bytes_ || !data_) {
    release();
    const size_t rounded = (bytes + 64) / 64 * 64;
    if (posix_memalign(&data_, 64, rounded) != 0) {  // not aligned_alloc: Android has it from API level 28 on
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
