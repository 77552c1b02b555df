#include "api/check.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstring>

namespace squeezebert {

squeezebert_status check_matrix(const Matrix& m) {
  if (m.rows > 0 && !m.data) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected %" PRId64 " rows, got NULL", m.name, m.rows);
  }
  // Beyond this the address of the last row would overflow.
  if (m.stride > INT64_MAX / static_cast<int64_t>(sizeof(float)) / std::max<int64_t>(m.rows, 1)) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected rows that fit into memory, got a stride of %" PRId64,
                m.name, m.stride);
  }
  if (m.stride < m.channels) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "%s: expected a stride of at least its %" PRId64 " channels, got %" PRId64, m.name, m.channels,
                m.stride);
  }
  return check_alignment(m.name, m.data, alignof(float));
}

squeezebert_status check_matrices(std::initializer_list<Matrix> inputs, const Matrix& output) {
  for (const Matrix& input : inputs) SQUEEZEBERT_TRY(check_matrix(input));
  SQUEEZEBERT_TRY(check_matrix(output));
  for (const Matrix& input : inputs) {
    if (!overlap(input, output)) continue;
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected memory that is not %s's, got rows that overlap",
                output.name, input.name);
  }
  return SQUEEZEBERT_OK;
}

Matrix flat(const char* name, const void* memory, int64_t bytes) {
  const int64_t floats = bytes / static_cast<int64_t>(sizeof(float));
  return {name, static_cast<const float*>(memory), memory && floats > 0, floats, floats};
}

squeezebert_status check_apart(const Matrix& output, const char* name, const squeezebert_linear& layer,
                               const Linear& linear) {
  const int64_t header = linear.weight.panels - static_cast<const char*>(layer.packed);
  const int64_t bias = linear.weight.shape.out_channels * static_cast<int64_t>(sizeof(float));
  return check_matrices({flat(name, layer.packed, header + linear.weight.bytes()), flat(name, layer.bias, bias)},
                        output);
}

squeezebert_status check_apart(const Matrix& output, const char* name, const squeezebert_layer_norm& norm,
                               int64_t channels) {
  const int64_t bytes = channels * static_cast<int64_t>(sizeof(float));
  return check_matrices({flat(name, norm.weight, bytes), flat(name, norm.bias, bytes)}, output);
}

squeezebert_status check_format(const char* name, squeezebert_format format) {
  if (format_name(format)) return product_for(format) ? SQUEEZEBERT_OK : SQUEEZEBERT_UNSUPPORTED_ISA;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a squeezebert_format, 0 to %d, got %d", name, kFormats - 1,
              static_cast<int>(format));
}

squeezebert_status check_formats(squeezebert_format key_format, squeezebert_format value_format, int64_t head_size,
                                 int64_t keys) {
  SQUEEZEBERT_TRY(check_format("key_format", key_format));
  SQUEEZEBERT_TRY(check_format("value_format", value_format));
  SQUEEZEBERT_TRY(check_depth("key_format", key_format, head_size));
  return check_depth("value_format", value_format, keys);
}

squeezebert_status check_tokens(int64_t tokens) {
  if (tokens >= 0 && tokens <= INT32_MAX) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "tokens: expected 0 to 2^31 - 1, got %" PRId64, tokens);
}

squeezebert_status check_offsets(const char* name, int64_t sequences, const int32_t* offsets) {
  if (sequences < 0 || sequences >= INT32_MAX) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "sequences: expected 0 to 2^31 - 2, got %" PRId64, sequences);
  }
  if (!offsets) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected sequences + 1 offsets, got NULL", name);
  SQUEEZEBERT_TRY(check_alignment(name, offsets, alignof(int32_t)));
  if (offsets[0] != 0) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected the first offset to be 0, got %" PRId32, name, offsets[0]);
  }
  for (int64_t s = 0; s < sequences; ++s) {
    if (offsets[s + 1] < offsets[s]) {
      return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                  "%s: expected offsets that never decrease, got %" PRId32 " after %" PRId32 " at sequence %" PRId64,
                  name, offsets[s + 1], offsets[s], s);
    }
  }
  return SQUEEZEBERT_OK;
}

squeezebert_status check_heads(int64_t heads, int64_t head_size) {
  if (heads >= 1 && head_size >= 1 && heads <= INT32_MAX / head_size) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT,
              "heads: expected at least one head of at least one channel, got %" PRId64 " heads of %" PRId64, heads,
              head_size);
}

squeezebert_status check_layer_norm(const char* name, const squeezebert_layer_norm* norm) {
  if (!norm || !norm->weight || !norm->bias) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a weight and a bias, got NULL", name);
  }
  if (!(norm->epsilon >= 0.0f) || std::isinf(norm->epsilon)) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a finite epsilon of at least 0, got %g", name,
                static_cast<double>(norm->epsilon));
  }
  SQUEEZEBERT_TRY(check_alignment(name, norm->weight, alignof(float)));
  return check_alignment(name, norm->bias, alignof(float));
}

squeezebert_status check_struct(const char* name, const void* given, size_t known) {
  if (!given) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a struct, got NULL", name);
  SQUEEZEBERT_TRY(check_alignment(name, given, alignof(size_t)));
  constexpr size_t kMost = 4096;  // beyond it, nobody set the size
  size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  if (size < known || size > kMost || size % alignof(size_t) != 0) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a struct_size of %zu, got %zu", name, known, size);
  }
  const char* const bytes = static_cast<const char*>(given);
  if (std::any_of(bytes + known, bytes + size, [](char byte) { return byte != 0; })) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "%s: expected zeros after the %zu bytes that this version knows, got a later version's members", name,
                known);
  }
  return SQUEEZEBERT_OK;
}

squeezebert_status check_scale(float scale) {
  if (std::isfinite(scale)) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "scale: expected a finite number, got %g", static_cast<double>(scale));
}

squeezebert_status check_mask(const squeezebert_mask* mask, const squeezebert_attention_shape& shape,
                              const Matrix& output) {
  if (!mask) return SQUEEZEBERT_OK;
  SQUEEZEBERT_TRY(check_struct("mask", mask, sizeof *mask));
  if (!mask->data) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "mask: expected its data, got NULL");
  SQUEEZEBERT_TRY(check_alignment("mask", mask->data, alignof(float)));
  const int64_t keys = longest(shape.key_offsets, shape.sequences);
  const int64_t queries = longest(shape.query_offsets, shape.sequences);
  const struct {
    const char* name;
    int64_t stride, count;
  } dimensions[] = {{"sequence_stride", mask->sequence_stride, shape.sequences},
                    {"head_stride", mask->head_stride, shape.heads},
                    {"query_stride", mask->query_stride, queries}};
  Size floats = keys;
  for (const auto& [name, stride, count] : dimensions) {
    if (stride != 0 && stride < keys) {
      return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                  "mask: expected a %s of 0 or at least the %" PRId64 " keys of the longest sequence, got %" PRId64,
                  name, keys, stride);
    }
    floats = floats + Size(stride) * std::max<int64_t>(count - 1, 0);
  }
  if ((floats * sizeof(float)).too_large()) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "mask: expected strides that fit into memory, got %" PRId64 ", %" PRId64 " and %" PRId64,
                mask->sequence_stride, mask->head_stride, mask->query_stride);
  }
  if (queries == 0 || keys == 0) return SQUEEZEBERT_OK;
  return check_matrices({{"mask", mask->data, 1, floats.count(), floats.count()}}, output);
}

squeezebert_status read_linear(const char* name, const squeezebert_linear* layer, int64_t in_channels,
                               int64_t out_channels, Linear* linear, bool any_kernel_size) {
  if (!layer) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a layer, got NULL", name);
  SQUEEZEBERT_TRY(read_pack(name, layer->packed, layer->packed_bytes, &linear->weight));
  SQUEEZEBERT_TRY(check_alignment(name, layer->bias, alignof(float)));
  linear->bias = layer->bias;
  const squeezebert_conv_shape& shape = linear->weight.shape;
  if (in_channels != 0 && shape.in_channels != in_channels) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a weight of %" PRId64 " input channels, got %" PRId64, name,
                in_channels, shape.in_channels);
  }
  if (out_channels != 0 && shape.out_channels != out_channels) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a weight of %" PRId64 " output channels, got %" PRId64, name,
                out_channels, shape.out_channels);
  }
  if (!any_kernel_size && shape.kernel_size != 1) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a weight of kernel_size 1, got %" PRId64, name, shape.kernel_size);
  }
  return SQUEEZEBERT_OK;
}

}  // namespace squeezebert
