// One product. Compiled once for each, in its own namespace and with its own flags.
#include "simd/unit.h"
#include "products/multiply.h"
#include "products/pack_right.h"
#include "products/peak.h"
#include "products/product.h"
#include "products/quantized_right.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

extern const Product kProduct;
const Product kProduct = {
    .name = SQUEEZEBERT_UNIT_NAME,
    .format = SQUEEZEBERT_UNIT_FORMAT,
    .rows = Tile::kRows,
    .layout = kLayout,
    .pack_right = Right<Element>::pack,
    .unpack_right = Right<Element>::unpack,
    .quantized = Right<Element>::quantized,
    .left_stride = kLeftStride,
    .pack_left = kPackLeft,
    .multiply = multiply,
    .peak = peak,
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
