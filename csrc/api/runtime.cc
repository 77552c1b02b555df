// The C API: version, ISAs and contexts.
#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <new>

#include "api/call.h"
#include "api/check.h"
#include "engine/cpus.h"

using namespace squeezebert;

extern "C" {

const char* squeezebert_last_error(void) { return last_error(); }

const char* squeezebert_version(void) { return SQUEEZEBERT_VERSION; }

int32_t squeezebert_numerics(void) { return SQUEEZEBERT_NUMERICS; }

const char* squeezebert_isa_name(int index) { return index >= 0 ? usable_isa(index) : nullptr; }

squeezebert_status squeezebert_active_isa(const char** name) {
  if (!name) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "name: expected where to put the name, got NULL");
  const RowKernels* kernels = row_kernels();
  *name = kernels ? kernels->name : nullptr;
  return kernels ? SQUEEZEBERT_OK : SQUEEZEBERT_UNSUPPORTED_ISA;
}

squeezebert_status squeezebert_force_isa(const char* name) { return force_isa(name); }

const char* squeezebert_format_name(squeezebert_format format) { return format_name(format); }

const char* squeezebert_product_name(int index) { return index >= 0 ? usable_product(index) : nullptr; }

const char* squeezebert_product_reason(int index) { return index >= 0 ? reason_for_product(index) : nullptr; }

squeezebert_status squeezebert_active_product(squeezebert_format format, const char** name) {
  if (!name) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "name: expected where to put the name, got NULL");
  *name = nullptr;
  SQUEEZEBERT_TRY(check_format("format", format));
  *name = product_for(format)->name;
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_force_product(const char* name) { return force_product(name); }

squeezebert_status squeezebert_measure_peak(squeezebert_format format, double seconds, double* gflops) {
  SQUEEZEBERT_TRY(check_format("format", format));
  if (!gflops) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "gflops: expected where to put the rate, got NULL");
  if (!(seconds > 0.0 && seconds <= 60.0)) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "seconds: expected more than 0 and at most 60, got %g", seconds);
  }
  const Product& product = *product_for(format);
  const DefaultFloatEnvironment environment;
  using Clock = std::chrono::steady_clock;
  const auto elapsed = [](Clock::time_point from) {
    return std::chrono::duration<double>(Clock::now() - from).count();
  };
  // Some milliseconds a run, so that the clock and one interruption do not matter; the best run is the machine's.
  constexpr double kRunSeconds = 2e-3;
  int64_t rounds = 16;
  double best = 0.0;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point begin = Clock::now();
    const double operations = product.peak(rounds);
    const double took = elapsed(begin);
    if (took < kRunSeconds / 2) {
      rounds *= 2;
    } else if (operations / took > best) {
      best = operations / took;
    }
  } while (elapsed(start) < seconds || best == 0.0);
  *gflops = best * 1e-9;
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_context_create(squeezebert_parallel_for parallel_for, void* host, int32_t workers,
                                              squeezebert_context** context) {
  if (!context) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "context: expected where to put it, got NULL");
  *context = new (std::nothrow) squeezebert_context;
  if (!*context) return fail(SQUEEZEBERT_OUT_OF_MEMORY, "context: out of memory");
  (*context)->workers = {parallel_for ? parallel_for : pool_parallel_for, host, 1, &(*context)->host_erred};
  const squeezebert_status status = squeezebert_context_set_workers(*context, workers);
  if (status != SQUEEZEBERT_OK) {
    delete *context;
    *context = nullptr;
  }
  return status;
}

void squeezebert_context_destroy(squeezebert_context* context) { delete context; }

squeezebert_status squeezebert_context_set_workers(squeezebert_context* context, int32_t workers) {
  if (!context) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "context: expected a context, got NULL");
  if (workers < 1 || workers > SQUEEZEBERT_MAX_WORKERS) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "workers: expected 1 to %d, got %" PRId32, SQUEEZEBERT_MAX_WORKERS,
                workers);
  }
  if (context->in_call()) return fail_in_use();  // its memory is of the old number
  context->workers.count = workers;
  return SQUEEZEBERT_OK;
}

int32_t squeezebert_context_workers(const squeezebert_context* context) { return context ? context->workers.count : 0; }

squeezebert_status squeezebert_pool_shutdown(void) {
  if (shut_down_pool()) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "pool: expected no call that is computing on its threads, got one");
}

int32_t squeezebert_default_workers(void) {
  return static_cast<int32_t>(std::min<int64_t>(usable_cpus(), SQUEEZEBERT_MAX_WORKERS));
}

size_t squeezebert_context_memory(const squeezebert_context* context) { return context ? context->memory() : 0; }

void squeezebert_context_release_memory(squeezebert_context* context) {
  if (context) context->release_memory();
}

size_t squeezebert_release_memory(void) { return release_all_memory(); }

}  // extern "C"
