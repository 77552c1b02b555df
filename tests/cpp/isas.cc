// Every ISA this CPU has against the scalar kernels, through the C API: all operators, at sizes that leave every kind
// of remainder (rows of a tile, columns of a panel, lanes of a vector, steps of k), and the same bits in any batch.
#include <functional>
#include <vector>

#include "check.h"

namespace {

using Floats = std::vector<float>;

#define OK(call) CHECK((call) == SQUEEZEBERT_OK)

// Numbers in [-1, 1) that are the same everywhere.
Floats random(int64_t count, uint32_t seed) {
  Floats values(count);
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  return values;
}

// A layer packed for the ISA in use. Weights shrink with the depth, which keeps activations of order 1.
class Layer {
 public:
  Layer(int64_t out, int64_t in, int64_t groups, int64_t kernel_size, uint32_t seed) : bias_(random(out, seed)) {
    const squeezebert_conv_shape shape = {out, in, groups, kernel_size};
    Floats weight = random(out * (in / groups) * kernel_size, seed + 1);
    for (float& w : weight) w /= sqrtf(static_cast<float>(in / groups * kernel_size));
    size_t bytes = 0;
    OK(squeezebert_packed_size(&shape, &bytes));
    packed_.resize(bytes);
    OK(squeezebert_pack(&shape, weight.data(), packed_.data(), bytes));
  }

  squeezebert_linear linear() const { return {packed_.data(), packed_.size(), bias_.data()}; }

 private:
  Floats bias_;
  std::vector<unsigned char> packed_;
};

struct Context {
  squeezebert_context* handle = nullptr;
  Context() { OK(squeezebert_context_create(nullptr, nullptr, 1, &handle)); }
  ~Context() { squeezebert_context_destroy(handle); }
};

struct LayerNorm {
  Floats weight, bias;
  explicit LayerNorm(int64_t channels) : weight(random(channels, 90)), bias(random(channels, 91)) {}
  squeezebert_layer_norm get() const { return {weight.data(), bias.data(), 1e-12f}; }
};

// Runs `compute` with the scalar kernels, then with each of the others; results of order 1 may differ by `bound`.
void compare(const char* what, const std::function<Floats()>& compute, double bound) {
  OK(squeezebert_force_isa("scalar"));
  const Floats expected = compute();
  for (int i = 0; squeezebert_isa_name(i) != nullptr; ++i) {
    OK(squeezebert_force_isa(squeezebert_isa_name(i)));
    const Floats got = compute();
    CHECK(got.size() == expected.size());
    double worst = 0.0;
    for (size_t j = 0; j < got.size(); ++j) {
      const double difference = fabs(static_cast<double>(got[j]) - expected[j]);
      if (!(difference <= worst)) worst = difference;
    }
    if (!(worst <= bound)) fprintf(stderr, "%s: %s differs by %.3g\n", what, squeezebert_isa_name(i), worst);
    CHECK(worst <= bound);
  }
  OK(squeezebert_force_isa(nullptr));
}

void test_conv1x1(int64_t tokens, int64_t in, int64_t out, int64_t groups) {
  const int64_t input_stride = in + 3, output_stride = out + 1;
  const Floats input = random(tokens * input_stride, 1), residual = random(tokens * out, 2);
  const LayerNorm norm(out);
  const squeezebert_layer_norm layer_norm = norm.get();
  // The columns between the rows of the output are not ours to write.
  const auto untouched = [&](const Floats& output) {
    for (int64_t t = 0; t < tokens; ++t) CHECK(output[t * output_stride + out] == 7.0f);
  };
  compare(
      "grouped_conv1x1",
      [&] {
        const Layer layer(out, in, groups, 1, 3);
        const squeezebert_linear linear = layer.linear();
        Floats output(tokens * output_stride, 7.0f);
        OK(squeezebert_grouped_conv1x1(Context().handle, tokens, input.data(), input_stride, &linear, output.data(),
                                       output_stride));
        untouched(output);
        return output;
      },
      1e-6);
  compare(
      "grouped_conv1x1_gelu",
      [&] {
        const Layer layer(out, in, groups, 1, 3);
        const squeezebert_linear linear = layer.linear();
        Floats output(tokens * output_stride, 7.0f);
        OK(squeezebert_grouped_conv1x1_gelu(Context().handle, tokens, input.data(), input_stride, &linear,
                                            output.data(), output_stride));
        untouched(output);
        return output;
      },
      1e-6);
  compare(
      "grouped_conv1x1_add_layer_norm",
      [&] {
        const Layer layer(out, in, groups, 1, 3);
        const squeezebert_linear linear = layer.linear();
        Floats output(tokens * output_stride, 7.0f);
        OK(squeezebert_grouped_conv1x1_add_layer_norm(Context().handle, tokens, input.data(), input_stride, &linear,
                                                      residual.data(), out, &layer_norm, output.data(), output_stride));
        untouched(output);
        return output;
      },
      4e-6);
}

void test_conv1d() {
  const int32_t offsets[] = {0, 1, 1, 12, 29};
  const Floats input = random(29 * 20, 4);
  compare(
      "grouped_conv1d",
      [&] {
        const Layer layer(28, 20, 4, 3, 5);
        const squeezebert_linear linear = layer.linear();
        Floats output(29 * 28);
        OK(squeezebert_grouped_conv1d(Context().handle, 4, offsets, input.data(), 20, &linear, output.data(), 28));
        return output;
      },
      1e-6);
}

// One mask row hides everything by -infinity (zeros come out), one by -FLT_MAX (a mean comes out).
void test_attention(int64_t queries, int64_t keys, int64_t head_size) {
  const int64_t heads = 3, channels = heads * head_size;
  const int32_t query_offsets[] = {0, static_cast<int32_t>(queries)}, key_offsets[] = {0, static_cast<int32_t>(keys)};
  const squeezebert_attention_shape shape = {1, query_offsets, key_offsets, heads, head_size, 0.7f};
  const Floats query = random(queries * channels, 6), key = random(keys * channels, 7),
               value = random(keys * channels, 8);
  Floats bias = random(queries * keys, 9);
  for (int64_t j = 0; j < keys; ++j) {
    bias[j] = -INFINITY;
    if (queries > 1) bias[keys + j] = -3.402823466e+38f;
  }
  const squeezebert_mask mask = {bias.data(), 0, 0, keys};
  for (const squeezebert_mask* given : {static_cast<const squeezebert_mask*>(nullptr), &mask}) {
    compare(
        "attention",
        [&] {
          Floats output(queries * channels, 7.0f);
          OK(squeezebert_attention(Context().handle, &shape, query.data(), channels, key.data(), channels, value.data(),
                                   channels, given, output.data(), channels));
          if (given) {
            for (int64_t c = 0; c < channels; ++c) CHECK(output[c] == 0.0f);
          }
          return output;
        },
        1e-6);
  }
}

void test_embedding() {
  const int64_t channels = 37, tokens = 5, ids[] = {3, 0, 10, 10, 7}, positions[] = {0, 1, 2, 3, 4};
  const Floats words = random(11 * channels, 10), places = random(5 * channels, 11), types = random(2 * channels, 12);
  const LayerNorm norm(channels);
  const squeezebert_embeddings embeddings = {words.data(), 11, places.data(), 5, types.data(), 2, channels, norm.get()};
  compare(
      "embedding_layer_norm",
      [&] {
        Floats output(tokens * channels);
        OK(squeezebert_embedding_layer_norm(Context().handle, tokens, ids, nullptr, positions, &embeddings,
                                            output.data(), channels));
        return output;
      },
      4e-6);
}

// An encoder layer over a batch; `groups` of the six projections, in the order of squeezebert_layer.
Floats encode(const int64_t groups[6], const std::vector<int32_t>& offsets, const Floats& input) {
  const int64_t channels = 48, wide = 144;
  const Layer query(channels, channels, groups[0], 1, 20), key(channels, channels, groups[1], 1, 30),
      value(channels, channels, groups[2], 1, 40), post_attention(channels, channels, groups[3], 1, 50),
      intermediate(wide, channels, groups[4], 1, 60), output(channels, wide, groups[5], 1, 70);
  const LayerNorm norm(channels);
  const squeezebert_layer layer = {query.linear(), key.linear(),          value.linear(),  post_attention.linear(),
                                   norm.get(),     intermediate.linear(), output.linear(), norm.get()};
  const squeezebert_encoder_shape shape = {static_cast<int64_t>(offsets.size()) - 1, offsets.data(), 4, 0};
  Floats result(input.size());
  OK(squeezebert_encoder(Context().handle, &shape, &layer, 1, input.data(), channels, nullptr, result.data(),
                         channels));
  return result;
}

void test_encoder() {
  const int64_t grouped[] = {4, 4, 4, 1, 4, 4}, dense[] = {1, 1, 1, 1, 1, 1}, mixed[] = {2, 4, 3, 1, 6, 2};
  const std::vector<int32_t> offsets = {0, 17, 18, 50};
  const Floats input = random(50 * 48, 80);
  for (const int64_t* groups : {grouped, dense, mixed}) {
    compare("encoder", [&] { return encode(groups, offsets, input); }, 5e-6);
    for (int i = 0; squeezebert_isa_name(i) != nullptr; ++i) {
      OK(squeezebert_force_isa(squeezebert_isa_name(i)));
      const Floats batch = encode(groups, offsets, input);
      for (size_t s = 0; s + 1 < offsets.size(); ++s) {
        const int32_t begin = offsets[s], length = offsets[s + 1] - begin;
        const Floats alone = encode(groups, {0, length}, Floats(&input[begin * 48], &input[begin * 48] + length * 48));
        CHECK(memcmp(alone.data(), &batch[begin * 48], alone.size() * sizeof(float)) == 0);
      }
    }
    OK(squeezebert_force_isa(nullptr));
  }
}

}  // namespace

int main() {
  for (int64_t tokens = 1; tokens <= 30; ++tokens) test_conv1x1(tokens, 24, 4 * 19, 4);
  for (int64_t depth = 1; depth <= 9; ++depth) test_conv1x1(15, 3 * depth, 3 * 5, 3);
  for (int64_t columns = 1; columns <= 70; columns += 3) test_conv1x1(3, 33, columns, 1);
  test_conv1x1(5, 192, 768, 1);
  test_conv1d();
  test_attention(1, 1, 1);
  test_attention(29, 35, 16);
  test_attention(13, 64, 7);
  test_attention(60, 131, 64);
  test_embedding();
  test_encoder();
  return check_result();
}
