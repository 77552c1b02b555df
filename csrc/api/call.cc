#include "api/call.h"

#include "isa/dispatch.h"

namespace squeezebert {

squeezebert_status fail_in_use() {
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "context: expected one that no call is using, got one in use");
}

Call::Call(squeezebert_context* context) : context_(context), begun_(take()) {}

Call::~Call() {
  if (taken_) context_->end_call();
}

squeezebert_status Call::take() {
  if (!context_) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "context: expected a context, got NULL");
  taken_ = context_->begin_call();
  if (!taken_) return fail_in_use();
  context_->host_erred = false;
  return row_kernels() && product_for(SQUEEZEBERT_FLOAT32) ? SQUEEZEBERT_OK : SQUEEZEBERT_UNSUPPORTED_ISA;
}

squeezebert_status Call::ended() const {
  if (!context_->host_erred) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_HOST_ERROR,
              "parallel_for: expected one call of the body for every worker, got one left out, repeated or unknown");
}

}  // namespace squeezebert
