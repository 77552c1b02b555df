// squeezebert_kernels._native: the C API for NumPy arrays, with the names and the order of arguments of
// torch.ops.squeezebert.*. Weights are packed once, by pack(), which is also where their group count is told.

#include <map>

#include "python/context.h"
#include "python/operators.h"
#include "python/unchanged.h"
#include "python/weights.h"
#include "squeezebert.h"

namespace squeezebert::python {
namespace {

std::vector<std::string> Isas() {
  std::vector<std::string> names;
  for (int i = 0; const char* name = squeezebert_isa_name(i); ++i) names.emplace_back(name);
  return names;
}

std::string ActiveIsa() {
  const char* name = nullptr;
  CheckStatus(squeezebert_active_isa(&name));
  return name;
}

void ForceIsa(const std::optional<std::string>& name) {
  CheckStatus(squeezebert_force_isa(name ? name->c_str() : nullptr));
}

std::vector<std::string> Products() {
  std::vector<std::string> names;
  for (int i = 0; const char* name = squeezebert_product_name(i); ++i) names.emplace_back(name);
  return names;
}

std::map<std::string, std::string> ProductReasons() {
  std::map<std::string, std::string> reasons;
  for (int i = 0; const char* name = squeezebert_product_name(i); ++i) reasons[name] = squeezebert_product_reason(i);
  return reasons;
}

std::vector<std::string> Formats() {
  std::vector<std::string> names;
  for (int i = 0; const char* name = squeezebert_format_name(static_cast<squeezebert_format>(i)); ++i) {
    names.emplace_back(name);
  }
  return names;
}

std::string ActiveProduct(const std::string& format) {
  const char* name = nullptr;
  CheckStatus(squeezebert_active_product(FormatNamed("format", format), &name));
  return name;
}

void ForceProduct(const std::optional<std::string>& name) {
  CheckStatus(squeezebert_force_product(name ? name->c_str() : nullptr));
}

double MeasurePeak(double seconds, const std::string& format_name) {
  const squeezebert_format format = FormatNamed("format", format_name);
  double gflops = 0.0;
  squeezebert_status status;
  {
    const py::gil_scoped_release release;
    status = squeezebert_measure_peak(format, seconds, &gflops);
  }
  CheckStatus(status);
  return gflops;
}

void BindMachine(py::module_& module) {
  module.def("version", &squeezebert_version, R"("major.minor.patch" of the compiled library.)");
  module.def("numerics", &squeezebert_numerics,
             "SQUEEZEBERT_NUMERICS of the compiled library: results of the same number have the same bits.");
  module.def("isas", &Isas, "The instruction sets that this CPU can run, best first.");
  module.def("active_isa", &ActiveIsa, R"(The instruction set in use.

Raises RuntimeError when SQUEEZEBERT_FORCE_ISA names one that cannot be used.)");
  module.def("formats", &Formats, "The number formats that weights are packed as.");
  module.def("products", &Products, R"(The products, FORMAT_ISA, that this CPU can run, best first within a format.)");
  module.def("product_reasons", &ProductReasons, "For each of products(), why it is in use for its format or is not.");
  module.def("active_product", &ActiveProduct, py::arg("format") = "float32",
             R"(The product in use for weights of a format, one of formats().

Raises RuntimeError when SQUEEZEBERT_FORCE_PRODUCT names one that cannot be used.)");
  module.def(
      "force_product", &ForceProduct, py::arg("name"),
      R"(Uses the named product for its format from now on, whatever the instruction set; None forgets all forced ones.

Weights packed before must be packed again. RuntimeError names what the CPU has if it lacks this one.)");
  module.def("force_isa", &ForceIsa, py::arg("name"),
             R"(Uses the named instruction set from now on; None chooses the best.

Weights packed before must be packed again. RuntimeError names what the CPU has if it lacks this one.)");
  module.def("get_num_threads", &NumThreads,
             R"(Threads that the functions of this module compute with.

Until set: the CPUs that this process may run on, by its affinity and its cgroups' quota.)");
  module.def("set_num_threads", &SetNumThreads, py::arg("threads"),
             "Sets how many threads to compute with, 1 to 4096.");
  module.def("release_memory", &squeezebert_release_memory, py::call_guard<py::gil_scoped_release>(),
             R"(Gives back the working memory that calls from any thread have left for the next, and returns its bytes.

That of torch.ops.squeezebert.* too. A call that is running keeps its own.)");
  module.def("measure_peak", &MeasurePeak, py::arg("seconds") = 0.2, py::arg("format") = "float32",
             R"(The multiply-add rate of one core in a format, GFLOP/s.

2 per multiply-add, by the product in use: the best of several runs that take about `seconds` together.)");
}

void BindPackedWeight(py::module_& module) {
  py::class_<PackedWeight>(module, "PackedWeight", "A weight as one product reads it; see pack().")
      .def_property_readonly("out_channels", [](const PackedWeight& weight) { return weight.shape().out_channels; })
      .def_property_readonly("in_channels", [](const PackedWeight& weight) { return weight.shape().in_channels; })
      .def_property_readonly("groups", [](const PackedWeight& weight) { return weight.shape().groups; })
      .def_property_readonly("kernel_size", [](const PackedWeight& weight) { return weight.shape().kernel_size; })
      .def_property_readonly("dtype",
                             [](const PackedWeight& weight) { return squeezebert_format_name(weight.format()); })
      .def_property_readonly("nbytes", &PackedWeight::bytes)
      // Nothing can change a packed weight, so a copy is the weight itself.
      .def("__copy__", [](const py::object& self) { return self; })
      .def("__deepcopy__", [](const py::object& self, const py::dict&) { return self; })
      .def(py::pickle([](const PackedWeight& weight) { return py::bytes(weight.State()); },
                      [](const py::bytes& state) { return PackedWeight(static_cast<std::string_view>(state)); }))
      .def("__repr__", [](const PackedWeight& weight) {
        const squeezebert_conv_shape& shape = weight.shape();
        return py::str("PackedWeight(out_channels={}, in_channels={}, groups={}, kernel_size={}, dtype={})")
            .format(shape.out_channels, shape.in_channels, shape.groups, shape.kernel_size,
                    squeezebert_format_name(weight.format()));
      });
  module.def(
      "pack",
      [](const py::array& weight, int64_t groups, const std::optional<std::string>& dtype) {
        return PackedWeight(weight, groups, dtype);
      },
      py::arg("weight"), py::arg("groups") = 1, py::arg("dtype") = py::none(),
      R"(Packs a weight [out_channels, in_channels / groups] or [out_channels, in_channels / groups, kernel_size].

dtype: one of formats(), what it is packed as; by default the weight's own dtype, float32 or float16. float16 and
"bfloat16" round it and take half the memory, and cores that have them multiply in them. "int8" quantizes it as
quantize_weight() does, takes a quarter, and quantizes what it is multiplied with on the way. Activations are float32.)");
  module.def(
      "unpack", [](const PackedWeight& weight) { return weight.Unpack(); }, py::arg("weight"),
      "The weight again, float32 [out_channels, in_channels / groups, kernel_size], as its format holds it.");
  const auto pair = [](const QuantizedWeight& weight) { return py::make_tuple(weight.values, weight.scale); };
  module.def(
      "quantize_weight", [pair](const py::array& weight) { return pair(Quantize(weight)); }, py::arg("weight"),
      R"(A weight as (values, scale), which is the portable form of what pack(dtype="int8") packs.

values are int8, of the weight's sizes; scale is float32, with 1 in place of in_channels / groups: for each output
channel (and tap) the largest magnitude / 127. weight = values * scale, about.)");
  module.def(
      "pack_quantized",
      [](const py::array& values, const py::array& scale, int64_t groups) {
        return PackedWeight(QuantizedWeight{values, scale}, groups);
      },
      py::arg("values"), py::arg("scale"), py::arg("groups") = 1, "Packs what quantize_weight() gives.");
  module.def(
      "unpack_quantized", [pair](const PackedWeight& weight) { return pair(weight.UnpackQuantized()); },
      py::arg("weight"),
      "(values, scale) of a weight packed as int8: [out, in / groups, kernel_size] and [out, 1, kernel_size].");
}

void BindConvolutions(py::module_& module) {
  module.def("grouped_conv1x1", &GroupedConv1x1, py::arg("input"), py::arg("weight"), py::arg("bias") = py::none(),
             R"(Position-wise grouped convolution: input [..., in_channels] -> [..., out_channels].)");
  module.def("grouped_conv1x1_gelu", &GroupedConv1x1Gelu, py::arg("input"), py::arg("weight"),
             py::arg("bias") = py::none(),
             R"(gelu(grouped_conv1x1(input)), with the exact GELU: x * (1 + erf(x / sqrt(2))) / 2.)");
  module.def("grouped_conv1x1_add_layer_norm", &GroupedConv1x1AddLayerNorm, py::arg("input"), py::arg("weight"),
             py::arg("bias"), py::arg("residual"), py::arg("ln_weight"), py::arg("ln_bias"), py::arg("eps") = 1e-12f,
             R"(layer_norm(grouped_conv1x1(input) + residual): input [..., in_channels] -> [..., out_channels].

residual has as many rows as input and out_channels columns; ln_weight and ln_bias are [out_channels].)");
  module.def("grouped_conv1d", &GroupedConv1d, py::arg("input"), py::arg("weight"), py::arg("bias") = py::none(),
             py::arg("cu_seqlens") = py::none(),
             R"(Grouped convolution along each sequence, odd kernel size, zeros outside the sequence ('same').

input is [N, S, in_channels], [S, in_channels], or packed tokens [T, in_channels] with cu_seqlens int32 [N + 1].)");
}

void BindAttention(py::module_& module) {
  module.def("attention", &Attention, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("num_heads"),
             py::arg("mask") = py::none(), py::arg("scale") = py::none(), py::arg("dtype") = "float32",
             R"(softmax(scale * Q K^T + mask) V of each head: query [N, Sq, C], key and value [N, Sk, C] -> [N, Sq, C].

Or without N. Head h owns channels [h * d, (h + 1) * d); scale is 1 / sqrt(d) unless given. mask broadcasts to
[N, num_heads, Sq, Sk]: float32 is added to the scores, bool keeps where True (the lowest float is added elsewhere).
dtype: what keys and values are packed as, one of formats().)");
  module.def("grouped_qkv_attention", &GroupedQkvAttention, py::arg("input"), py::arg("query_weight"),
             py::arg("query_bias"), py::arg("key_weight"), py::arg("key_bias"), py::arg("value_weight"),
             py::arg("value_bias"), py::arg("num_heads"), py::arg("mask") = py::none(),
             py::arg("cu_seqlens") = py::none(), py::arg("scale") = py::none(), py::arg("attention_dtype") = py::none(),
             R"(attention() of three grouped_conv1x1() of the same input.

input is [N, S, C], [S, C], or packed tokens [T, C] with cu_seqlens int32 [N + 1] (and then no mask). attention_dtype:
the dtype of attention(); None for that of query_weight.)");
}

void BindBlocks(py::module_& module) {
  module.def("grouped_ffn", &GroupedFfn, py::arg("input"), py::arg("intermediate_weight"), py::arg("intermediate_bias"),
             py::arg("output_weight"), py::arg("output_bias"), py::arg("ln_weight"), py::arg("ln_bias"),
             py::arg("eps") = 1e-12f,
             R"(layer_norm(conv_output(gelu(conv_intermediate(input))) + input): input [..., C] -> [..., C].)");
  module.def(
      "embedding_layer_norm", &EmbeddingLayerNorm, py::arg("input_ids"), py::arg("token_type_ids"),
      py::arg("position_ids"), py::arg("word_embeddings"), py::arg("position_embeddings"),
      py::arg("token_type_embeddings"), py::arg("ln_weight"), py::arg("ln_bias"), py::arg("eps") = 1e-12f,
      R"(layer_norm(word[input_ids] + position[position_ids] + token_type[token_type_ids]): [..., S] -> [..., S, C].

Ids are integers of any width and broadcast to input_ids. position_ids None: 0..S-1; token_type_ids None: 0. The
embeddings are float32 [rows, C].)");
  module.def("encoder", &Encoder, py::arg("input"), py::arg("params"), py::arg("num_heads"), py::arg("eps") = 1e-12f,
             py::arg("mask") = py::none(), py::arg("cu_seqlens") = py::none(), py::arg("first_token_only") = false,
             R"(The layers in turn: input [N, S, C], [S, C], or packed tokens [T, C] with cu_seqlens int32 [N + 1].

params are 16 per layer: query, key, value and post_attention, each a PackedWeight and a bias (or None); the weight and
bias of its LayerNorm; intermediate and output, again packed weight and bias; the weight and bias of the last LayerNorm.
first_token_only returns one row per sequence, [N, C].)");
}

}  // namespace
}  // namespace squeezebert::python

PYBIND11_MODULE(_native, module) {
  module.doc() = R"(The kernels for NumPy arrays; use them through squeezebert_kernels.numpy.

Arrays are float32 (weights also float16) with channels last. Any strides will do; an array whose channels are
not next to each other is copied. The GIL is released while computing. A wrong argument raises ValueError that names
it.)";
  using namespace squeezebert::python;
  BindMachine(module);
  BindPackedWeight(module);
  BindConvolutions(module);
  BindAttention(module);
  BindBlocks(module);
  module.def("unchanged", &Unchanged, pybind11::arg("places"), pybind11::arg("objects"),
             R"(Whether Python objects are still what they were.

places is owner, key, value, owner, ...: that very value is at the key of a dictionary, or an attribute of an owner that
is none (None stands for nothing, too). objects is object, class, dictionary, length, object, ...: every object is of
that very class, and every dictionary has so many items.)");
}
