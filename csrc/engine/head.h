// Attention of one sequence and one head: softmax(scale * Q K^T + mask) V.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/size.h"
#include "isa/dispatch.h"
#include "kernels/rows.h"

namespace squeezebert {

struct HeadArgs {
  int64_t query_rows = 0;
  int64_t key_rows = 0;
  int64_t head_size = 0;
  const float* query = nullptr;
  ptrdiff_t query_stride = 0;
  const float* key = nullptr;
  ptrdiff_t key_stride = 0;
  const float* value = nullptr;
  ptrdiff_t value_stride = 0;
  const float* mask = nullptr;  // null: none
  ptrdiff_t mask_stride = 0;    // between queries; 0: the same for all
  float scale = 1.0f;
  Dropout dropout;  // of the probabilities, its rows those of query
  float* output = nullptr;
  ptrdiff_t output_stride = 0;
};

// The kernels of both products and of what is between them. Each product has a format of its own.
struct HeadKernels {
  const Product* scores = nullptr;  // queries by keys
  const Product* values = nullptr;  // probabilities by values
  const RowKernels* rows = nullptr;
};

// Memory for keys and values as packed right sides, and for a block of queries.
Size head_floats(const HeadKernels& kernels, int64_t key_rows, int64_t head_size);
void run_head(const HeadKernels& kernels, const HeadArgs& args, float* memory);

}  // namespace squeezebert
