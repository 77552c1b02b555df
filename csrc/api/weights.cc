// The C API: packing of weights.
#include <algorithm>
#include <cinttypes>

#include "api/check.h"
#include "engine/float_environment.h"

using namespace squeezebert;

namespace {

int64_t elements_of(const squeezebert_conv_shape& shape) {
  return shape.out_channels * (shape.in_channels / shape.groups) * shape.kernel_size;
}
int64_t weight_bytes_of(const squeezebert_conv_shape& shape) {
  return elements_of(shape) * static_cast<int64_t>(sizeof(float));
}
int64_t scale_bytes_of(const squeezebert_conv_shape& shape) {
  return shape.out_channels * shape.kernel_size * static_cast<int64_t>(sizeof(float));
}

// Room for the packed form, apart from the inputs.
squeezebert_status check_room(std::initializer_list<Matrix> inputs, void* packed, size_t bytes, size_t expected) {
  if (!packed || bytes < expected) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "packed: expected room for %zu bytes, got %zu", expected,
                packed ? bytes : 0);
  }
  return check_matrices(inputs, flat("packed", packed, static_cast<int64_t>(expected)));
}

squeezebert_status check_given(const char* name, const char* what, const void* pointer) {
  if (pointer) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected %s, got NULL", name, what);
}

// That two are apart where at least one of them is no float.
squeezebert_status check_bytes_apart(const char* input, const void* a, int64_t a_bytes, const char* output,
                                     const void* b, int64_t b_bytes) {
  const auto from = reinterpret_cast<uintptr_t>(a), to = reinterpret_cast<uintptr_t>(b);
  if (from + static_cast<uintptr_t>(a_bytes) <= to || to + static_cast<uintptr_t>(b_bytes) <= from)
    return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected memory that is not %s's, got some that overlaps", output,
              input);
}

}  // namespace

extern "C" {

squeezebert_status squeezebert_packed_size(const squeezebert_conv_shape* shape, squeezebert_format format,
                                           size_t* bytes) {
  if (!shape || !bytes) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape, bytes: expected both, got NULL");
  SQUEEZEBERT_TRY(check_shape(*shape));
  SQUEEZEBERT_TRY(check_format("format", format));
  SQUEEZEBERT_TRY(check_depth("shape", format, shape->in_channels / shape->groups));
  *bytes = packed_bytes(*product_for(format), *shape);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_pack(const squeezebert_conv_shape* shape, squeezebert_format format, const float* weight,
                                    void* packed, size_t bytes) {
  size_t expected = 0;
  SQUEEZEBERT_TRY(squeezebert_packed_size(shape, format, &expected));
  SQUEEZEBERT_TRY(check_given("weight", "a weight", weight));
  SQUEEZEBERT_TRY(check_room({flat("weight", weight, weight_bytes_of(*shape))}, packed, bytes, expected));
  const DefaultFloatEnvironment environment;
  pack(*product_for(format), *shape, weight, packed);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_pack_transposed(const squeezebert_conv_shape* shape, const float* weight, void* packed,
                                               size_t bytes) {
  if (!shape) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape: expected a shape, got NULL");
  if (shape->kernel_size != 1) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "kernel_size: expected 1, got %" PRId64, shape->kernel_size);
  }
  const squeezebert_conv_shape turned = transposed(*shape);
  size_t expected = 0;
  SQUEEZEBERT_TRY(squeezebert_packed_size(&turned, SQUEEZEBERT_FLOAT32, &expected));
  SQUEEZEBERT_TRY(check_given("weight", "a weight", weight));
  SQUEEZEBERT_TRY(check_room({flat("weight", weight, weight_bytes_of(*shape))}, packed, bytes, expected));
  const DefaultFloatEnvironment environment;
  pack_transposed(*product_for(SQUEEZEBERT_FLOAT32), *shape, weight, packed);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_unpack(const void* packed, size_t bytes, float* weight, size_t weight_bytes) {
  Weight read;
  SQUEEZEBERT_TRY(read_pack("packed", packed, bytes, &read));
  const auto expected = static_cast<size_t>(weight_bytes_of(read.shape));
  if (!weight || weight_bytes != expected) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "weight: expected room for %zu bytes, got %zu", expected,
                weight ? weight_bytes : 0);
  }
  SQUEEZEBERT_TRY(
      check_matrices({flat("packed", packed, static_cast<int64_t>(packed_bytes(*read.product, read.shape)))},
                     flat("weight", weight, weight_bytes_of(read.shape))));
  const DefaultFloatEnvironment environment;
  unpack(read, weight);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_packed_shape(const void* packed, size_t bytes, squeezebert_conv_shape* shape,
                                            squeezebert_format* format) {
  if (!shape) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape: expected where to put it, got NULL");
  Weight weight;
  SQUEEZEBERT_TRY(read_pack("packed", packed, bytes, &weight));
  *shape = weight.shape;
  if (format) *format = weight.product->format;
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_quantize(const squeezebert_conv_shape* shape, const float* weight, int8_t* values,
                                        float* scales) {
  if (!shape) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape: expected a shape, got NULL");
  SQUEEZEBERT_TRY(check_shape(*shape));
  SQUEEZEBERT_TRY(check_depth("shape", SQUEEZEBERT_INT8, shape->in_channels / shape->groups));
  SQUEEZEBERT_TRY(check_format("format", SQUEEZEBERT_INT8));
  SQUEEZEBERT_TRY(check_given("weight", "a weight", weight));
  SQUEEZEBERT_TRY(check_given("values", "room for them", values));
  SQUEEZEBERT_TRY(check_given("scales", "room for them", scales));
  const int64_t bytes = weight_bytes_of(*shape), scale_bytes = scale_bytes_of(*shape);
  SQUEEZEBERT_TRY(check_matrices({flat("weight", weight, bytes)}, flat("scales", scales, scale_bytes)));
  SQUEEZEBERT_TRY(check_bytes_apart("weight", weight, bytes, "values", values, elements_of(*shape)));
  SQUEEZEBERT_TRY(check_bytes_apart("scales", scales, scale_bytes, "values", values, elements_of(*shape)));
  const DefaultFloatEnvironment environment;
  quantize(*product_for(SQUEEZEBERT_INT8), *shape, weight, values, scales);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_pack_quantized(const squeezebert_conv_shape* shape, const int8_t* values,
                                              const float* scales, void* packed, size_t bytes) {
  size_t expected = 0;
  SQUEEZEBERT_TRY(squeezebert_packed_size(shape, SQUEEZEBERT_INT8, &expected));
  SQUEEZEBERT_TRY(check_given("values", "a weight's", values));
  SQUEEZEBERT_TRY(check_given("scales", "a weight's", scales));
  SQUEEZEBERT_TRY(check_room({flat("scales", scales, scale_bytes_of(*shape))}, packed, bytes, expected));
  SQUEEZEBERT_TRY(
      check_bytes_apart("values", values, elements_of(*shape), "packed", packed, static_cast<int64_t>(expected)));
  const DefaultFloatEnvironment environment;
  pack_quantized(*product_for(SQUEEZEBERT_INT8), *shape, values, scales, packed);
  return SQUEEZEBERT_OK;
}

squeezebert_status squeezebert_unpack_quantized(const void* packed, size_t bytes, int8_t* values, float* scales) {
  Weight read;
  SQUEEZEBERT_TRY(read_pack("packed", packed, bytes, &read));
  if (!read.product->quantized) {
    return fail(SQUEEZEBERT_BAD_PACK, "packed: expected a weight packed as int8, got %s",
                format_name(read.product->format));
  }
  SQUEEZEBERT_TRY(check_given("values", "room for them", values));
  SQUEEZEBERT_TRY(check_given("scales", "room for them", scales));
  const auto packed_size = static_cast<int64_t>(packed_bytes(*read.product, read.shape));
  const int64_t scale_bytes = scale_bytes_of(read.shape);
  SQUEEZEBERT_TRY(check_matrices({flat("packed", packed, packed_size)}, flat("scales", scales, scale_bytes)));
  SQUEEZEBERT_TRY(check_bytes_apart("packed", packed, packed_size, "values", values, elements_of(read.shape)));
  SQUEEZEBERT_TRY(check_bytes_apart("scales", scales, scale_bytes, "values", values, elements_of(read.shape)));
  const DefaultFloatEnvironment environment;
  unpack_quantized(read, values, scales);
  return SQUEEZEBERT_OK;
}

}  // extern "C"
