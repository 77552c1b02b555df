// The row kernels of one instruction set. Compiled once for each, in its own namespace and with its own flags.
#include "simd/unit.h"
#include "kernels/column_sums/kernel.h"
#include "kernels/dropout/kernel.h"
#include "kernels/embedding_layer_norm/kernel.h"
#include "kernels/gelu/kernel.h"
#include "kernels/layer_norm/kernel.h"
#include "kernels/layer_norm/training.h"
#include "kernels/rows.h"
#include "kernels/softmax/backward.h"
#include "kernels/softmax/kernel.h"
#include "kernels/transpose/kernel.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

extern const RowKernels kRowKernels;
const RowKernels kRowKernels = {
    .name = SQUEEZEBERT_UNIT_NAME,
    .layer_norm = layer_norm,
    .embedding_layer_norm = embedding_layer_norm,
    .softmax = softmax,
    .dropout = dropout,
    .add_layer_norm = add_layer_norm,
    .layer_norm_backward = layer_norm_backward,
    .gelu = gelu_rows,
    .gelu_backward = gelu_backward,
    .softmax_backward = softmax_backward,
    .column_sums = column_sums,
    .transpose = transpose,
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
