// How the operators report a bad argument: which one, what was expected, what came.
//
// std::invalid_argument reaches Python as ValueError, std::out_of_range as IndexError, anything else as RuntimeError.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "squeezebert.h"

namespace squeezebert::torch_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// The name of one argument of one operator. `index` >= 0 says that it is params[index] of an encoder.
struct Argument {
  const char* op;
  const char* name;
  int64_t index = -1;
};

/// Throws std::invalid_argument: "squeezebert::<op>: <argument>: expected <expected>, got <got>".
[[noreturn]] void Fail(const Argument& argument, const std::string& expected, const std::string& got);

/// "torch.float32"
std::string DtypeName(ScalarType dtype);

/// "[2, 3]"
std::string Text(const std::vector<int64_t>& sizes);

/// "a torch.float32 tensor of shape [2, 3]"
std::string Describe(const Tensor& tensor);

std::vector<int64_t> Sizes(const Tensor& tensor);

/// The tensor is on the CPU and of this dtype.
void CheckCpu(const Argument& argument, const Tensor& tensor, ScalarType dtype);

/// The tensor is a float32 CPU vector of `size` elements. Returns it contiguous.
Tensor AsVector(const Argument& argument, const Tensor& tensor, int64_t size);

/// `eps` is a number that is not negative.
float AsEpsilon(const char* op, double eps);

/// num_heads >= 1 divides `channels`.
void CheckHeads(const char* op, int64_t num_heads, int64_t channels);

/// Throws what the C API reported, prefixed with the operator's name, unless `status` is SQUEEZEBERT_OK.
void CheckStatus(const char* op, squeezebert_status status);

}  // namespace squeezebert::torch_ops
