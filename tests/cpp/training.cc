// Training of a layer: gradients beside differences of the exact layer in float64, the same bits on every host and with
// every product, and what is refused. (The Python tests hold every gradient against autograd of the reference.)
#include "exact.h"

namespace {

using namespace tests;

constexpr int64_t kHeads = 4;

struct Trained {
  EncoderLayer layer;
  int64_t channels, wide;
  std::vector<std::vector<unsigned char>> transposed;

  Trained(int64_t channels, int64_t wide, const int64_t (&groups)[6])
      : layer(channels, wide, groups, 300), channels(channels), wide(wide) {}

  void pack() {
    layer.pack();
    transposed.clear();
    for (Conv* conv :
         {&layer.query, &layer.key, &layer.value, &layer.post_attention, &layer.intermediate, &layer.output}) {
      const squeezebert_conv_shape turned = {conv->shape.in_channels, conv->shape.out_channels, conv->shape.groups, 1};
      size_t bytes = 0;
      OK(squeezebert_packed_size(&turned, SQUEEZEBERT_FLOAT32, &bytes));
      transposed.emplace_back(bytes, 0xff);
      OK(squeezebert_pack_transposed(&conv->shape, conv->weight.data(), transposed.back().data(), bytes));
    }
  }
  squeezebert_layer backward() const {
    squeezebert_layer turned = layer.get();
    squeezebert_linear* const linears[] = {&turned.query,          &turned.key,          &turned.value,
                                           &turned.post_attention, &turned.intermediate, &turned.output};
    for (size_t i = 0; i < 6; ++i) *linears[i] = {transposed[i].data(), transposed[i].size(), nullptr};
    return turned;
  }
};

// The output and then all gradients, one behind the other.
Floats run(squeezebert_context* context, const Trained& trained, const Offsets& offsets, const Floats& input,
           const Floats& grad_output, float dropout, const squeezebert_mask* mask = nullptr) {
  squeezebert_training training = SQUEEZEBERT_TRAINING_INIT;
  training.sequences = static_cast<int64_t>(offsets.size()) - 1;
  training.cu_seqlens = offsets.data();
  training.heads = kHeads;
  training.hidden_dropout = training.attention_dropout = dropout;
  training.seed = 0x123456789abcdefu;
  const int64_t tokens = offsets.back(), channels = trained.channels;
  size_t floats = 0;
  OK(squeezebert_training_saved_floats(tokens, channels, trained.wide, &floats));
  Matrix saved(1, static_cast<int64_t>(floats));
  const squeezebert_layer layer = trained.layer.get(), turned = trained.backward();
  const Matrix x(input, channels, 3), grad(grad_output, channels, 5);
  Matrix y(tokens, channels, 1);
  OK(squeezebert_encoder_layer_training(context, &training, &layer, x.data(), x.stride(), mask, y.data(), y.stride(),
                                        saved.data(), floats));
  CHECK(y.edges_intact() && saved.edges_intact());
  Floats all = y.values();

  std::vector<Matrix> parts;
  parts.reserve(17);
  const auto part = [&](size_t count) {
    parts.emplace_back(1, static_cast<int64_t>(count));
    return parts.back().data();
  };
  squeezebert_layer_gradients gradients = SQUEEZEBERT_LAYER_GRADIENTS_INIT;
  gradients.input = part(input.size());
  const EncoderLayer& l = trained.layer;
  gradients.query = {part(l.query.weight.size()), part(l.query.bias.size())};
  gradients.key = {part(l.key.weight.size()), part(l.key.bias.size())};
  gradients.value = {part(l.value.weight.size()), part(l.value.bias.size())};
  gradients.post_attention = {part(l.post_attention.weight.size()), part(l.post_attention.bias.size())};
  gradients.post_attention_layer_norm = {part(l.post_attention_norm.weight.size()),
                                         part(l.post_attention_norm.bias.size())};
  gradients.intermediate = {part(l.intermediate.weight.size()), part(l.intermediate.bias.size())};
  gradients.output = {part(l.output.weight.size()), part(l.output.bias.size())};
  gradients.output_layer_norm = {part(l.output_norm.weight.size()), part(l.output_norm.bias.size())};
  OK(squeezebert_encoder_layer_backward(context, &training, &turned, x.data(), x.stride(), mask, saved.data(), floats,
                                        grad.data(), grad.stride(), &gradients));
  for (const Matrix& one : parts) {
    CHECK(one.edges_intact());
    const Floats values = one.values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// The sum of grad_output times the exact layer's output, as a function of the input and the weights.
double exact_loss(const EncoderLayer& layer, const Offsets& offsets, const Doubles& input, const Floats& grad_output) {
  double magnifies = 0.0;
  const Doubles y = exact_layer(layer, offsets, kHeads, input, nullptr, &magnifies);
  double loss = 0.0;
  for (size_t i = 0; i < y.size(); ++i) loss += y[i] * static_cast<double>(grad_output[i]);
  return loss;
}

// Central differences of the exact loss, of step 2^-12 (whose own error is some 1e-6 of the gradient), along a random
// direction of the input and of one weight.
void test_gradients() {
  constexpr int64_t kChannels = 24, kWide = 60, kGroups[6] = {4, 2, 4, 1, 4, 4};
  const Offsets offsets = {0, 7, 7, 18};
  const Floats input = random(18 * kChannels, 1), grad_output = random(18 * kChannels, 2);
  const Floats direction = random(18 * kChannels, 3), turn = random(kWide * kChannels / 4, 4);
  constexpr double kStep = 0x1p-12;
  Trained trained(kChannels, kWide, kGroups);
  const auto loss_at = [&](double step) {
    Doubles moved = widen(input);
    for (size_t i = 0; i < moved.size(); ++i) moved[i] += step * static_cast<double>(direction[i]);
    EncoderLayer layer = trained.layer;
    return exact_loss(layer, offsets, moved, grad_output);
  };
  const double along_input = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
  const auto loss_of_weight = [&](float step) {
    EncoderLayer layer = trained.layer;
    for (size_t i = 0; i < turn.size(); ++i) layer.intermediate.weight[i] += step * turn[i];
    return exact_loss(layer, offsets, widen(input), grad_output);
  };
  const double along_weight = (loss_of_weight(0x1p-8f) - loss_of_weight(-0x1p-8f)) / 0x1p-7;
  for_each_isa([&] {
    trained.pack();
    const Floats got = run(Context(), trained, offsets, input, grad_output, 0.0f);
    double of_input = 0.0, of_weight = 0.0;
    for (size_t i = 0; i < direction.size(); ++i) {
      of_input += static_cast<double>(got[input.size() + i]) * static_cast<double>(direction[i]);
    }
    const EncoderLayer& l = trained.layer;
    size_t at = 2 * input.size();
    for (const Conv* conv : {&l.query, &l.key, &l.value, &l.post_attention})
      at += conv->weight.size() + conv->bias.size();
    at += 2 * static_cast<size_t>(kChannels);
    for (size_t i = 0; i < turn.size(); ++i)
      of_weight += static_cast<double>(got[at + i]) * static_cast<double>(turn[i]);
    CHECK(fabs(of_input - along_input) <= 1e-4 * (1.0 + fabs(along_input)));
    CHECK(fabs(of_weight - along_weight) <= 1e-3 * (1.0 + fabs(along_weight)));
  });
}

uint64_t hash(const Floats& values) {
  uint64_t sum = 14695981039346656037u;
  for (const float value : values) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    sum = (sum ^ bits) * 1099511628211u;
  }
  return sum;
}

// Every host and every product: one hash, of odd sizes, groups that line up and groups that do not, with dropout.
void test_same_bits() {
  constexpr int64_t kAll[][6] = {{4, 4, 4, 1, 4, 4}, {2, 4, 1, 4, 4, 2}};
  const Offsets offsets = {0, 1, 10, 43, 43, 300};
  const uint64_t expected[] = {0xed799746838c2026u, 0xe67bf12ac3f45fd8u};
  for (int which = 0; which < 2; ++which) {
    Trained trained(36, 132, kAll[which]);
    const Floats input = random(300 * 36, 5), grad_output = random(300 * 36, 6);
    for_each_isa([&] {
      trained.pack();
      const Floats got =
          on_every_host([&](auto* context) { return run(context, trained, offsets, input, grad_output, 0.1f); });
      if (hash(got) != expected[which]) fprintf(stderr, "hash 0x%016llx\n", static_cast<unsigned long long>(hash(got)));
      CHECK(hash(got) == expected[which]);
    });
  }
}

// Without dropout the output has the bits of squeezebert_encoder.
void test_output() {
  constexpr int64_t kChannels = 24, kGroups[6] = {4, 4, 4, 1, 4, 4};
  const Offsets offsets = {0, 129, 129, 140};
  const Floats input = random(140 * kChannels, 7), data = random(129, 8);
  const squeezebert_mask mask = {sizeof(squeezebert_mask), data.data(), 0, 0, 0};
  Trained trained(kChannels, 60, kGroups);
  for_each_isa([&] {
    trained.pack();
    const squeezebert_layer layer = trained.layer.get();
    const squeezebert_encoder_shape shape = {sizeof(squeezebert_encoder_shape), 3, offsets.data(), kHeads, 0};
    Floats y(input.size());
    OK(squeezebert_encoder(Context(), &shape, &layer, 1, input.data(), kChannels, &mask, y.data(), kChannels));
    const Floats all = run(Context(), trained, offsets, input, input, 0.0f, &mask);
    CHECK(same_bits(slice(all, 0, static_cast<int64_t>(y.size())), y));
  });
}

void test_errors() {
  constexpr int64_t kChannels = 24, kGroups[6] = {4, 4, 4, 1, 4, 4};
  Trained trained(kChannels, 60, kGroups);
  trained.pack();
  const Offsets offsets = {0, 2};
  const Floats input = random(2 * kChannels, 1);
  squeezebert_training training = SQUEEZEBERT_TRAINING_INIT;
  training.sequences = 1;
  training.cu_seqlens = offsets.data();
  training.heads = kHeads;
  squeezebert_layer layer = trained.layer.get();
  const squeezebert_layer turned = trained.backward();
  size_t floats = 0;
  OK(squeezebert_training_saved_floats(2, kChannels, 60, &floats));
  Floats saved(floats), y(input.size());
  const Context context;
  const auto forward = [&] {
    return squeezebert_encoder_layer_training(context, &training, &layer, input.data(), kChannels, nullptr, y.data(),
                                              kChannels, saved.data(), floats);
  };
  const auto refused = [&](squeezebert_status status, const char* message) {
    CHECK(status != SQUEEZEBERT_OK);
    CHECK(std::string(squeezebert_last_error()).find(message) == 0);
    if (std::string(squeezebert_last_error()).find(message) != 0)
      fprintf(stderr, "got: %s\n", squeezebert_last_error());
  };
  OK(forward());
  training.hidden_dropout = 1.0f;
  refused(forward(), "hidden_dropout: expected a probability, 0 to below 1, got 1");
  training.hidden_dropout = 0.0f;
  training.attention_dropout = NAN;
  refused(forward(), "attention_dropout: expected a probability");
  training.attention_dropout = 0.0f;
  training.heads = 5;
  refused(forward(), "heads: expected a divisor of 24 channels, got 5");
  training.heads = kHeads;
  --floats;
  refused(forward(), "saved: expected");
  ++floats;
  layer.output = turned.output;
  refused(forward(), "output: expected a weight of 60 input channels, got 24");
  layer = trained.layer.get();
  refused(squeezebert_encoder_layer_training(context, &training, &layer, input.data(), kChannels, nullptr, saved.data(),
                                             kChannels, saved.data(), floats),
          "output: expected memory that is not saved's");
  squeezebert_layer_gradients gradients = SQUEEZEBERT_LAYER_GRADIENTS_INIT;
  gradients.input = y.data();
  const auto backward = [&](const squeezebert_layer& given) {
    return squeezebert_encoder_layer_backward(context, &training, &given, input.data(), kChannels, nullptr,
                                              saved.data(), floats, input.data(), kChannels, &gradients);
  };
  OK(backward(turned));
  refused(backward(layer), "output: expected a weight of 24 input channels, got 60");
  gradients.struct_size = 8;
  refused(backward(turned), "gradients: expected a struct_size");
  size_t none = 0;
  refused(squeezebert_training_saved_floats(-1, 24, 60, &none), "tokens: expected 0 to 2^31 - 1, got -1");
  refused(squeezebert_training_saved_floats(1, 0, 60, &none), "channels: expected 1 to 2^31 - 1, got 0");
  refused(squeezebert_training_saved_floats(1, 24, 60, nullptr), "floats: expected where");
  squeezebert_conv_shape wide = {24, 24, 1, 3};
  refused(squeezebert_pack_transposed(&wide, input.data(), saved.data(), 4), "kernel_size: expected 1, got 3");
  refused(squeezebert_pack_transposed(nullptr, input.data(), saved.data(), 4), "shape: expected a shape");
}

}  // namespace

int main() {
  test_gradients();
  test_same_bits();
  test_output();
  test_errors();
  return check_result();
}
