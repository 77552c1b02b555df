// Packed weights: a header that says what the pack is, then its panels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/context.h"
#include "isa/dispatch.h"

namespace squeezebert {

// A packed weight after its header was checked. Panels follow tap by tap, group by group, as the product's layout says.
// The product is that which the weight was packed for, in use for its format.
struct Weight {
  const Product* product = nullptr;
  squeezebert_conv_shape shape{};
  const char* panels = nullptr;

  int64_t depth() const { return shape.in_channels / shape.groups; }
  int64_t group_columns() const { return shape.out_channels / shape.groups; }
  int64_t group_panels() const { return product->layout.panels(group_columns()); }
  int64_t all_panels() const { return shape.groups * group_panels(); }
  int64_t panel_bytes() const { return product->layout.bytes(depth()); }
  int64_t bytes() const { return shape.kernel_size * all_panels() * panel_bytes(); }
  const char* panel(int64_t index, int64_t tap = 0) const {
    return panels + (tap * all_panels() + index) * panel_bytes();
  }
};

squeezebert_status check_shape(const squeezebert_conv_shape& shape);
// Sums of int8 products are whole numbers of 32 bits: so many products of 255 and 128 fit into one.
constexpr int64_t kMostQuantizedDepth = 65536;
squeezebert_status check_depth(const char* argument, squeezebert_format format, int64_t depth);
size_t packed_bytes(const Product& product, const squeezebert_conv_shape& shape);
void pack(const Product& product, const squeezebert_conv_shape& shape, const float* weight, void* packed);
// The weight transposed within each group: packed, it is one of shape `transposed(shape)`. kernel_size 1.
squeezebert_conv_shape transposed(const squeezebert_conv_shape& shape);
void pack_transposed(const Product& product, const squeezebert_conv_shape& shape, const float* weight, void* packed);
// The weight's values, as the format holds them.
void unpack(const Weight& packed, float* weight);

// Of a format that is quantized: its values, as `weight` lies, and their scales [out_channels, 1, kernel_size].
void quantize(const Product& product, const squeezebert_conv_shape& shape, const float* weight, int8_t* values,
              float* scales);
void pack_quantized(const Product& product, const squeezebert_conv_shape& shape, const int8_t* values,
                    const float* scales, void* packed);
void unpack_quantized(const Weight& packed, int8_t* values, float* scales);

// Reads and checks a header; `argument` is the name an error gives.
squeezebert_status read_pack(const char* argument, const void* packed, size_t bytes, Weight* weight);

}  // namespace squeezebert
