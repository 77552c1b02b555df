#include "engine/status.h"

#include <cstdarg>
#include <cstdio>

namespace squeezebert {

namespace {
thread_local char g_error[512] = "";
}

squeezebert_status fail(squeezebert_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(g_error, sizeof g_error, format, arguments);
  va_end(arguments);
  return status;
}

const char* last_error() { return g_error; }

}  // namespace squeezebert
