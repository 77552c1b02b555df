#include "engine/context.h"

#include <cstdlib>

namespace squeezebert {

void* Buffer::reserve(size_t bytes) {
  if (bytes > bytes_ || !data_) {
    release();
    const size_t rounded = (bytes + 64) / 64 * 64;
    data_ = std::aligned_alloc(64, rounded);
    if (!data_) {
      fail(SQUEEZEBERT_OUT_OF_MEMORY, "context: could not get %zu bytes of working memory", rounded);
      return nullptr;
    }
    bytes_ = rounded;
  }
  return data_;
}

void Buffer::release() {
  std::free(data_);
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace squeezebert
