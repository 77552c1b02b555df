// What every function of the C API that computes in a context does first and last.
#pragma once

#include "engine/context.h"
#include "engine/float_environment.h"

namespace squeezebert {

// The error of whoever finds the context taken.
squeezebert_status fail_in_use();

// Takes the context for one call, and computes in the default floating-point environment until the call returns.
class Call {
 public:
  explicit Call(squeezebert_context* context);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Whether the call can begin: there is a context that no other call is using, and an ISA.
  squeezebert_status begun() const { return begun_; }
  // How it ended, after everything was computed: SQUEEZEBERT_HOST_ERROR when the host did not do its part.
  squeezebert_status ended() const;

 private:
  squeezebert_status take();

  const DefaultFloatEnvironment environment_;
  squeezebert_context* const context_;
  bool taken_ = false;
  const squeezebert_status begun_;
};

}  // namespace squeezebert
