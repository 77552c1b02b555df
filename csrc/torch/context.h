// The context in which the calling thread computes: torch's threads, and working memory that is kept between calls.
#pragma once

#include "squeezebert.h"

namespace squeezebert::torch_ops {

/// The calling thread's own context, set to torch.get_num_threads() workers. It lives as long as the thread.
squeezebert_context* ThreadContext(const char* op);

}  // namespace squeezebert::torch_ops
