#include "isa/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "isa/cpu.h"

#if defined(__x86_64__)
#define SQUEEZEBERT_ON_x86_64(...) __VA_ARGS__
#else
#define SQUEEZEBERT_ON_x86_64(...)
#endif
#if defined(__aarch64__)
#define SQUEEZEBERT_ON_aarch64(...) __VA_ARGS__
#else
#define SQUEEZEBERT_ON_aarch64(...)
#endif
#define SQUEEZEBERT_ON_any(...) __VA_ARGS__

namespace squeezebert {

// What the translation units define.
#define SQUEEZEBERT_FORMAT(...)
#define SQUEEZEBERT_ISA(name, architecture, ...) \
  SQUEEZEBERT_ON_##architecture(namespace name { extern const RowKernels kRowKernels; })
#define SQUEEZEBERT_PRODUCT(name, architecture, ...) \
  SQUEEZEBERT_ON_##architecture(namespace name { extern const Product kProduct; })
#include "isa/list.inc"
#undef SQUEEZEBERT_FORMAT
#undef SQUEEZEBERT_ISA
#undef SQUEEZEBERT_PRODUCT

namespace {

struct Isa {
  const RowKernels* kernels;
  bool (*runs)();
};

struct Candidate {
  const Product* product;
  const RowKernels* isa;
  bool (*runs)();  // on a machine with the instruction set
  Choice (*chosen)();
};

#define SQUEEZEBERT_FORMAT(...)
#define SQUEEZEBERT_PRODUCT(...)
#define SQUEEZEBERT_ISA(name, architecture, runs, ...) \
  SQUEEZEBERT_ON_##architecture({&name::kRowKernels, [] { return runs; }}, )
constexpr Isa kIsas[] = {
#include "isa/list.inc"
};
#undef SQUEEZEBERT_ISA
#undef SQUEEZEBERT_PRODUCT
#define SQUEEZEBERT_ISA(...)
#define SQUEEZEBERT_PRODUCT(name, architecture, isa, format, header, runs, chosen, ...) \
  SQUEEZEBERT_ON_##architecture(                                                        \
      {&name::kProduct, &isa::kRowKernels, [] { return runs; }, []() -> Choice { return chosen; }}, )
constexpr Candidate kCandidates[] = {
#include "isa/list.inc"
};
#undef SQUEEZEBERT_FORMAT
#undef SQUEEZEBERT_ISA
#undef SQUEEZEBERT_PRODUCT
#define SQUEEZEBERT_FORMAT(name, value) #name,
#define SQUEEZEBERT_ISA(...)
#define SQUEEZEBERT_PRODUCT(...)
constexpr const char* kFormatNames[] = {
#include "isa/list.inc"
};

std::atomic<const RowKernels*> g_isa{nullptr};
std::atomic<const Product*> g_forced[kFormats];
std::atomic<bool> g_environment_read{false};  // SQUEEZEBERT_FORCE_PRODUCT; what it names is then in g_forced

const RowKernels* isa_at(int index) {
  for (const Isa& isa : kIsas) {
    if (isa.runs() && index-- == 0) return isa.kernels;
  }
  return nullptr;
}

bool has(const RowKernels* kernels) {
  for (const Isa& isa : kIsas) {
    if (isa.kernels == kernels) return isa.runs();
  }
  return false;
}

const Candidate* product_at(int index) {
  for (const Candidate& candidate : kCandidates) {
    if (has(candidate.isa) && candidate.runs() && index-- == 0) return &candidate;
  }
  return nullptr;
}

const RowKernels* find_isa(const char* name) {
  for (int i = 0; const RowKernels* isa = isa_at(i); ++i) {
    if (std::strcmp(isa->name, name) == 0) return isa;
  }
  return nullptr;
}

const Product* find_product(std::string_view name) {
  for (int i = 0; const Candidate* candidate = product_at(i); ++i) {
    if (name == candidate->product->name) return candidate->product;
  }
  return nullptr;
}

squeezebert_status unusable(const char* asked_by, const char* what, const char* (*usable)(int), std::string_view name) {
  char names[512] = "";
  for (int i = 0; const char* one = usable(i); ++i) {
    std::strncat(names, i ? ", " : "", sizeof names - std::strlen(names) - 1);
    std::strncat(names, one, sizeof names - std::strlen(names) - 1);
  }
  return fail(SQUEEZEBERT_UNSUPPORTED_ISA, "%s: expected %s that this CPU has (%s), got \"%.*s\"", asked_by, what,
              names, static_cast<int>(name.size()), name.data());
}

// Names of products, with commas between them: all of them, or none where one cannot be used. A format whose product
// was forced already keeps that.
squeezebert_status force_products_of_environment() {
  const char* variable = std::getenv("SQUEEZEBERT_FORCE_PRODUCT");
  std::string_view names = variable ? variable : "";
  const Product* named[kFormats] = {};
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(','));
    const Product* product = find_product(name);
    if (!product) return unusable("SQUEEZEBERT_FORCE_PRODUCT", "a product", usable_product, name);
    named[product->format] = product;
    names.remove_prefix(name.size() < names.size() ? name.size() + 1 : name.size());
  }
  for (int format = 0; format < kFormats; ++format) {
    const Product* none = nullptr;
    if (named[format]) g_forced[format].compare_exchange_strong(none, named[format], std::memory_order_relaxed);
  }
  g_environment_read.store(true, std::memory_order_release);
  return SQUEEZEBERT_OK;
}

}  // namespace

const char* format_name(squeezebert_format format) {
  const auto index = static_cast<unsigned>(format);
  return index < kFormats ? kFormatNames[index] : nullptr;
}

const char* usable_isa(int index) {
  const RowKernels* isa = isa_at(index);
  return isa ? isa->name : nullptr;
}

const char* usable_product(int index) {
  const Candidate* candidate = product_at(index);
  return candidate ? candidate->product->name : nullptr;
}

const char* reason_for_product(int index) {
  const Candidate* candidate = product_at(index);
  if (!candidate) return nullptr;
  const auto format = candidate->product->format;
  if (candidate->product == product_for(format)) return g_forced[format].load() ? "forced" : "chosen";
  if (candidate->isa != row_kernels()) return "of another instruction set";
  const Choice choice = candidate->chosen();
  return choice.yes ? "a better one is there" : choice.against;
}

const RowKernels* row_kernels() {
  if (const RowKernels* isa = g_isa.load(std::memory_order_relaxed)) return isa;
  const char* name = std::getenv("SQUEEZEBERT_FORCE_ISA");
  const RowKernels* isa = name && *name ? find_isa(name) : isa_at(0);
  if (!isa) {
    unusable("SQUEEZEBERT_FORCE_ISA", "an ISA", usable_isa, name);
    return nullptr;
  }
  g_isa.store(isa, std::memory_order_relaxed);
  return isa;
}

const Product* product_for(squeezebert_format format) {
  if (const Product* forced = g_forced[format].load(std::memory_order_relaxed)) return forced;
  if (!g_environment_read.load(std::memory_order_acquire)) {
    return force_products_of_environment() == SQUEEZEBERT_OK ? product_for(format) : nullptr;
  }
  const RowKernels* isa = row_kernels();
  if (!isa) return nullptr;
  for (const Candidate& candidate : kCandidates) {
    if (candidate.isa == isa && candidate.product->format == format && candidate.runs() && candidate.chosen().yes) {
      return candidate.product;
    }
  }
  fail(SQUEEZEBERT_UNSUPPORTED_ISA, "format: expected one that %s has a product for, got %s", isa->name,
       format_name(format));
  return nullptr;
}

squeezebert_status force_isa(const char* name) {
  const RowKernels* isa = name ? find_isa(name) : nullptr;
  if (name && !isa) return unusable("isa", "an ISA", usable_isa, name);
  g_isa.store(isa, std::memory_order_relaxed);
  return row_kernels() ? SQUEEZEBERT_OK : SQUEEZEBERT_UNSUPPORTED_ISA;
}

squeezebert_status force_product(const char* name) {
  if (!name) {
    for (auto& forced : g_forced) forced.store(nullptr, std::memory_order_relaxed);
    g_environment_read.store(false, std::memory_order_relaxed);
    return force_products_of_environment();
  }
  const Product* product = find_product(name);
  if (!product) return unusable("product", "a product", usable_product, name);
  g_forced[product->format].store(product, std::memory_order_relaxed);
  return SQUEEZEBERT_OK;
}

}  // namespace squeezebert
