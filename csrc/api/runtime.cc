// The C API: version, ISAs, contexts and packing.
#include <chrono>
#include <cinttypes>
#include <new>

#include "api/check.h"

using namespace squeezebert;

extern "C" {

const char* squeezebert_last_error(void) { return last_error(); }

const char* squeezebert_version(void) { return SQUEEZEBERT_VERSION; }

const char* squeezebert_isa_name(int index) { return index >= 0 ? usable_isa(index) : nullptr; }

squeezebert_status squeezebert_active_isa(const char** name) {
  if (!name) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "name: expected where to put the name, got NULL");
  const Kernels* kernels = active_kernels();
  *name = kernels ? kernels->name : nullptr;
  return kernels ? SQUEEZEBERT_OK : SQUEEZEBERT_UNSUPPORTED_ISA;
}

squeezebert_status squeezebert_force_isa(const char* name) { return force_isa(name); }

squeezebert_status squeezebert_active_kernels(squeezebert_dtype dtype, const char** name) {
  if (!name) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "name: expected where to put the name, got NULL");
  *name = nullptr;
  SQUEEZEBERT_TRY(check_dtype(dtype));
  const Kernels* kernels = active_kernels(dtype);
  if (!kernels) return SQUEEZEBERT_UNSUPPORTED_ISA;
  *name = kernels->name;
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_measure_peak(squeezebert_dtype dtype, double seconds, double* gflops) {
  SQUEEZEBERT_TRY(check_dtype(dtype));
  if (!gflops) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "gflops: expected where to put the rate, got NULL");
  if (!(seconds > 0.0 && seconds <= 60.0)) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "seconds: expected more than 0 and at most 60, got %g", seconds);
  }
  const Kernels* kernels = active_kernels(dtype);
  if (!kernels) return SQUEEZEBERT_UNSUPPORTED_ISA;
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
    const double operations = kernels->peak(rounds);
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
  (*context)->workers = {parallel_for ? parallel_for : pool_parallel_for, host, 1};
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
  context->workers.count = workers;
  return SQUEEZEBERT_OK;
}

int32_t squeezebert_context_workers(const squeezebert_context* context) { return context ? context->workers.count : 0; }

size_t squeezebert_context_memory(const squeezebert_context* context) {
  return context ? context->working.bytes() + context->layers.bytes() : 0;
}

void squeezebert_context_release_memory(squeezebert_context* context) {
  if (!context) return;
  context->working.release();
  context->layers.release();
}

squeezebert_status squeezebert_packed_size(const squeezebert_conv_shape* shape, squeezebert_dtype dtype,
                                           size_t* bytes) {
  if (!shape || !bytes) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape, bytes: expected both, got NULL");
  SQUEEZEBERT_TRY(check_shape(*shape));
  SQUEEZEBERT_TRY(check_dtype(dtype));
  const Kernels* kernels = active_kernels(dtype);
  if (!kernels) return SQUEEZEBERT_UNSUPPORTED_ISA;
  *bytes = packed_bytes(*kernels, *shape);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_pack(const squeezebert_conv_shape* shape, squeezebert_dtype dtype, const float* weight,
                                    void* packed, size_t bytes) {
  size_t expected = 0;
  SQUEEZEBERT_TRY(squeezebert_packed_size(shape, dtype, &expected));
  if (!weight) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "weight: expected a weight, got NULL");
  if (!packed || bytes < expected) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "packed: expected room for %zu bytes, got %zu", expected,
                packed ? bytes : 0);
  }
  SQUEEZEBERT_TRY(check_pack_alignment("packed", packed));
  pack(*active_kernels(dtype), *shape, weight, packed);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_packed_shape(const void* packed, size_t bytes, squeezebert_conv_shape* shape,
                                            squeezebert_dtype* dtype) {
  if (!shape) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape: expected where to put it, got NULL");
  Weight weight;
  SQUEEZEBERT_TRY(read_pack("packed", packed, bytes, &weight));
  *shape = weight.shape;
  if (dtype) *dtype = weight.kernels->weight_bytes == 2 ? SQUEEZEBERT_FLOAT16 : SQUEEZEBERT_FLOAT32;
  return SQUEEZEBERT_OK;
}

}  // extern "C"
