// Which kernels run: the instruction sets and products that were built in, those that this machine runs, and those in
// use.
#pragma once

#include "engine/status.h"
#include "kernels/rows.h"
#include "products/product.h"

namespace squeezebert {

// clang-format off
constexpr int kFormats = 0  // of squeezebert_format, from 0 on
#define SQUEEZEBERT_FORMAT(...) + 1
#define SQUEEZEBERT_ISA(...)
#define SQUEEZEBERT_PRODUCT(...)
#include "isa/list.inc"
#undef SQUEEZEBERT_FORMAT
#undef SQUEEZEBERT_ISA
#undef SQUEEZEBERT_PRODUCT
    ;
// clang-format on
const char* format_name(squeezebert_format format);  // null for a number that is none

// The names of those that this machine runs, best first; null past the last.
const char* usable_isa(int index);
const char* usable_product(int index);
// Why that product is in use or not.
const char* reason_for_product(int index);

// The row kernels in use, and the product in use for a format. Null, with the error set, when SQUEEZEBERT_FORCE_ISA or
// SQUEEZEBERT_FORCE_PRODUCT names what cannot be used.
const RowKernels* row_kernels();
const Product* product_for(squeezebert_format format);

// null: back to the environment variable's, or the best.
squeezebert_status force_isa(const char* name);
// For the format that the product is of. null, for all formats: back to the environment variable's, or the best of the
// instruction set in use.
squeezebert_status force_product(const char* name);

}  // namespace squeezebert
