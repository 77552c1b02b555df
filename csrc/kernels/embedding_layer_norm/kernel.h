// embedding_layer_norm: y = layer_norm(word[input_id] + position[position_id] + token_type[token_type_id]).
//
// The sum is written to y and normalized there, while the row is in L1. Ids were checked by the caller.
#pragma once

#include "kernels/layer_norm/kernel.h"
#include "kernels/rows.h"
#include "simd/row.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

inline void embedding_layer_norm(const EmbeddingArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* word = a.word + a.input_ids[r] * a.channels;
    const float* position = a.position + a.position_ids[r] * a.channels;
    const float* token_type = a.token_type + (a.token_type_ids ? a.token_type_ids[r] : 0) * a.channels;
    float* y = a.y + r * a.y_stride;
    for_each_vector(a.channels, [&](int64_t c, int n) {
      store_some(y + c, (load_some(word + c, n) + load_some(position + c, n)) + load_some(token_type + c, n), n);
    });
    layer_norm_row(y, a.weight, a.bias, a.epsilon, a.channels, y);
  }
}

}  // namespace squeezebert::SQUEEZEBERT_UNIT
