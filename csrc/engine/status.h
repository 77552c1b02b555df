// How every layer of the core says what went wrong: a status to return, a text that squeezebert_last_error() gives.
#pragma once

#include "squeezebert.h"

namespace squeezebert {

// Records the text for the calling thread and returns `status`.
__attribute__((format(printf, 2, 3))) squeezebert_status fail(squeezebert_status status, const char* format, ...);

const char* last_error();

// Refuses an address that is no multiple of `alignment`; `argument` is the name that the error gives.
squeezebert_status check_alignment(const char* argument, const void* memory, size_t alignment);

// Returns from the enclosing function with any status but OK.
#define SQUEEZEBERT_TRY(call)                                                           \
  do {                                                                                  \
    if (const squeezebert_status tried = (call); tried != SQUEEZEBERT_OK) return tried; \
  } while (0)

}  // namespace squeezebert
