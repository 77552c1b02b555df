#include "engine/pack.h"

#include <cinttypes>
#include <cstring>

#include "engine/checksum.h"

namespace squeezebert {

namespace {

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t numerics;  // SQUEEZEBERT_NUMERICS of the library that packed it
  char product[32];
  uint32_t format;  // squeezebert_format
  PanelLayout layout;
  uint32_t reserved[5];  // 0
  squeezebert_conv_shape shape;
  uint64_t checksum;  // of all that stands before it
};
static_assert(sizeof(Header) == 128, "the panels start at a cache line");

constexpr char kMagic[9] = "SQZBPACK";
constexpr uint32_t kVersion = 2;

}  // namespace

squeezebert_status check_shape(const squeezebert_conv_shape& s) {
  constexpr int64_t kMost = INT32_MAX;
  if (s.out_channels < 1 || s.in_channels < 1 || s.out_channels > kMost || s.in_channels > kMost) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "shape: expected 1 to 2^31 - 1 channels, got %" PRId64 " in and %" PRId64 " out", s.in_channels,
                s.out_channels);
  }
  if (s.groups < 1 || s.in_channels % s.groups != 0 || s.out_channels % s.groups != 0) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT,
                "groups: expected a divisor of %" PRId64 " input and %" PRId64 " output channels, got %" PRId64,
                s.in_channels, s.out_channels, s.groups);
  }
  if (s.kernel_size < 1 || s.kernel_size % 2 == 0 || s.kernel_size > kMost) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "kernel_size: expected an odd number, got %" PRId64, s.kernel_size);
  }
  // A panel is at most 32 columns of 12 bytes for each of them (4 values of a byte, a scale, a sum): no size overflows.
  if (static_cast<double>(s.in_channels) * static_cast<double>(s.out_channels) * static_cast<double>(s.kernel_size) >
      0x1p54) {
    return fail(SQUEEZEBERT_INVALID_ARGUMENT, "shape: the weight has more than 2^54 elements");
  }
  return SQUEEZEBERT_OK;
}

squeezebert_status check_depth(const char* argument, squeezebert_format format, int64_t depth) {
  if (format != SQUEEZEBERT_INT8 || depth <= kMostQuantizedDepth) return SQUEEZEBERT_OK;
  return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected sums of at most %" PRId64 " products in int8, got %" PRId64,
              argument, kMostQuantizedDepth, depth);
}

namespace {

// Calls body(index of its first panel, its weights in [out_channels, in_channels / groups, kernel_size]) for every
// group of every tap.
template <class Value, class Body>
void for_each_group(const Weight& weight, Value* values, const Body& body) {
  const int64_t depth = weight.depth(), columns = weight.group_columns(), taps = weight.shape.kernel_size;
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t group = 0; group < weight.shape.groups; ++group) {
      body(tap * weight.all_panels() + group * weight.group_panels(),
           Columns<Value>{.values = values + group * columns * depth * taps + tap,
                          .column_stride = depth * taps,
                          .k_stride = taps,
                          .depth = depth,
                          .columns = columns});
    }
  }
}

}  // namespace

size_t packed_bytes(const Product& product, const squeezebert_conv_shape& shape) {
  return sizeof(Header) + static_cast<size_t>(Weight{&product, shape, nullptr}.bytes());
}

namespace {

// The header, and zeros where panels end within a cache line.
Weight begin_pack(const Product& product, const squeezebert_conv_shape& shape, void* packed) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof header.magic);
  header.version = kVersion;
  header.numerics = SQUEEZEBERT_NUMERICS;
  std::strncpy(header.product, product.name, sizeof header.product - 1);
  header.format = static_cast<uint32_t>(product.format);
  header.layout = product.layout;
  header.shape = shape;
  header.checksum = checksum(header);
  std::memcpy(packed, &header, sizeof header);

  char* const panels = static_cast<char*>(packed) + sizeof(Header);
  const Weight weight{&product, shape, panels};
  constexpr int64_t kLine = 64;  // of a panel, the last of which it may fill in part
  for (char* end = panels + weight.panel_bytes(); end <= panels + weight.bytes(); end += weight.panel_bytes()) {
    std::memset(end - kLine, 0, kLine);
  }
  return weight;
}

char* panel_of(const Weight& weight, void* packed, int64_t panel) {
  return static_cast<char*>(packed) + sizeof(Header) + panel * weight.panel_bytes();
}

// Calls body(index of its first panel, its values, their scales in [out_channels, 1, kernel_size]) as for_each_group.
template <class Value, class Scale, class Body>
void for_each_quantized_group(const Weight& weight, Value* values, Scale* scales, const Body& body) {
  const int64_t taps = weight.shape.kernel_size;
  for_each_group(weight, values, [&](int64_t panel, const Columns<Value>& columns) {
    const int64_t tap = panel / weight.all_panels();
    const int64_t group = panel % weight.all_panels() / weight.group_panels();
    Scale* const first = scales + group * columns.columns * taps + tap;
    body(panel, Quantized<Value, Scale>{.columns = columns, .scales = first, .scale_stride = taps});
  });
}

}  // namespace

void pack(const Product& product, const squeezebert_conv_shape& shape, const float* source, void* packed) {
  const Weight weight = begin_pack(product, shape, packed);
  for_each_group(weight, source, [&](int64_t panel, const Columns<const float>& columns) {
    product.pack_right(columns, panel_of(weight, packed, panel));
  });
}

squeezebert_conv_shape transposed(const squeezebert_conv_shape& shape) {
  return {shape.in_channels, shape.out_channels, shape.groups, shape.kernel_size};
}

void pack_transposed(const Product& product, const squeezebert_conv_shape& shape, const float* source, void* packed) {
  const Weight weight = begin_pack(product, transposed(shape), packed);
  const int64_t depth = weight.depth(), columns = weight.group_columns();
  for (int64_t group = 0; group < shape.groups; ++group) {
    product.pack_right({.values = source + group * depth * columns,
                        .column_stride = 1,
                        .k_stride = columns,
                        .depth = depth,
                        .columns = columns},
                       panel_of(weight, packed, group * weight.group_panels()));
  }
}

void unpack(const Weight& packed, float* weight) {
  for_each_group(packed, weight, [&](int64_t panel, const Columns<float>& columns) {
    packed.product->unpack_right(packed.panel(panel), columns);
  });
}

void quantize(const Product& product, const squeezebert_conv_shape& shape, const float* weight, int8_t* values,
              float* scales) {
  const Weight layout{&product, shape, nullptr};
  for_each_quantized_group(layout, values, scales, [&](int64_t, const Quantized<int8_t, float>& to) {
    product.quantized->quantize({.values = weight + (to.columns.values - values),
                                 .column_stride = to.columns.column_stride,
                                 .k_stride = to.columns.k_stride,
                                 .depth = to.columns.depth,
                                 .columns = to.columns.columns},
                                to);
  });
}

void pack_quantized(const Product& product, const squeezebert_conv_shape& shape, const int8_t* values,
                    const float* scales, void* packed) {
  const Weight weight = begin_pack(product, shape, packed);
  for_each_quantized_group(weight, values, scales,
                           [&](int64_t panel, const Quantized<const int8_t, const float>& from) {
                             product.quantized->pack(from, panel_of(weight, packed, panel));
                           });
}

void unpack_quantized(const Weight& packed, int8_t* values, float* scales) {
  for_each_quantized_group(packed, values, scales, [&](int64_t panel, const Quantized<int8_t, float>& to) {
    packed.product->quantized->unpack(packed.panel(panel), to);
  });
}

squeezebert_status read_pack(const char* argument, const void* packed, size_t bytes, Weight* weight) {
  if (!packed) return fail(SQUEEZEBERT_INVALID_ARGUMENT, "%s: expected a packed weight, got NULL", argument);
  SQUEEZEBERT_TRY(check_alignment(argument, packed, alignof(float)));
  if (bytes < sizeof(Header)) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a packed weight, got %zu bytes, less than its header", argument,
                bytes);
  }
  Header header;
  std::memcpy(&header, packed, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof header.magic) != 0 || header.checksum != checksum(header)) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a packed weight, got %zu bytes that are not one", argument, bytes);
  }
  if (header.version != kVersion || header.numerics != SQUEEZEBERT_NUMERICS) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected pack format %u.%d, got %u.%u: pack the weight again", argument,
                kVersion, SQUEEZEBERT_NUMERICS, header.version, header.numerics);
  }
  const auto format = static_cast<squeezebert_format>(header.format);
  header.product[sizeof header.product - 1] = '\0';
  if (!format_name(format)) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a format of this library, got number %u (%s)", argument,
                header.format, header.product);
  }
  const Product* product = product_for(format);
  if (!product) return SQUEEZEBERT_UNSUPPORTED_ISA;
  if (std::strcmp(header.product, product->name) != 0 ||
      std::memcmp(&header.layout, &product->layout, sizeof header.layout) != 0) {
    return fail(SQUEEZEBERT_BAD_PACK,
                "%s: expected a weight packed for %s, got one for %s, %d columns wide: pack the weight again", argument,
                product->name, header.product, static_cast<int>(header.layout.columns));
  }
  if (check_shape(header.shape) != SQUEEZEBERT_OK ||
      check_depth(argument, format, header.shape.in_channels / header.shape.groups) != SQUEEZEBERT_OK) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected a packed weight, got one of an impossible shape", argument);
  }
  const size_t expected = packed_bytes(*product, header.shape);
  if (bytes < expected) {
    return fail(SQUEEZEBERT_BAD_PACK, "%s: expected %zu bytes of packed weight, got %zu", argument, expected, bytes);
  }
  *weight = {product, header.shape, static_cast<const char*>(packed) + sizeof(Header)};
  return SQUEEZEBERT_OK;
}

}  // namespace squeezebert
