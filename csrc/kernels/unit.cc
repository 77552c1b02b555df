// The row kernels of one instruction set. Compiled once for each, in its own namespace and with its own flags.
#include "simd/unit.h"
#include "kernels/embedding_layer_norm/kernel.h"
#include "kernels/layer_norm/kernel.h"
#include "kernels/rows.h"
#include "kernels/softmax/kernel.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

extern const RowKernels kRowKernels;
const RowKernels kRowKernels = {
    .name = SQUEEZEBERT_UNIT_NAME,
    .layer_norm = layer_norm,
    .embedding_layer_norm = embedding_layer_norm,
    .softmax = softmax,
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
