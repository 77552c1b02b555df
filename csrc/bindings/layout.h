// What the bindings of torch and of NumPy have in common: how their arguments lie in memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace squeezebert::bindings {

// Of an encoder's `params`: six weights and biases, two LayerNorms, in Hugging Face's order.
constexpr int64_t kTensorsPerLayer = 16;

// The distance between consecutive rows of an array [..., channels], in elements, when all leading dimensions lie one
// distance apart and the channels next to each other; nothing otherwise, nor where rows overlap.
inline std::optional<int64_t> RowStride(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  const size_t last = sizes.size() - 1;
  const int64_t channels = sizes[last];
  if (channels != 1 && strides[last] != 1) return std::nullopt;
  int64_t rows = 1, stride = channels;
  for (size_t d = last; d-- > 0;) {
    if (sizes[d] == 1) continue;
    if (rows == 1) stride = strides[d];
    if (strides[d] != stride * rows) return std::nullopt;
    rows *= sizes[d];
  }
  if (stride < channels) return std::nullopt;
  return stride;
}

// `sequences` of `length` tokens each. Both fit 32 bits, and so does their product.
inline std::vector<int32_t> EqualOffsets(int64_t sequences, int64_t length) {
  std::vector<int32_t> offsets(static_cast<size_t>(sequences) + 1);
  for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = static_cast<int32_t>(static_cast<int64_t>(i) * length);
  return offsets;
}

struct Mismatch {
  std::string expected;
  std::string got;
};

// What is wrong with cu_seqlens, if anything is. It has at least one element.
inline std::optional<Mismatch> CheckOffsets(const std::vector<int32_t>& offsets, int64_t tokens) {
  if (offsets[0] != 0) return Mismatch{"the first offset to be 0", std::to_string(offsets[0])};
  for (size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] < offsets[i - 1]) {
      return Mismatch{"offsets that never decrease", std::to_string(offsets[i - 1]) + " then " +
                                                         std::to_string(offsets[i]) + " at index " + std::to_string(i)};
    }
  }
  if (offsets.back() != tokens) {
    return Mismatch{"the last offset to be the " + std::to_string(tokens) + " tokens of input",
                    std::to_string(offsets.back())};
  }
  return std::nullopt;
}

}  // namespace squeezebert::bindings
