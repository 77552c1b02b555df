// Structs that say their size: one that does not is refused, a later version's is taken where it asks for nothing new.
#include <string>

#include "support.h"

namespace {

using namespace tests;

constexpr int64_t kChannels = 8, kTokens = 4;
constexpr squeezebert_status kInvalid = SQUEEZEBERT_INVALID_ARGUMENT;

// What a program would pass that was compiled with a later version's header.
template <class Struct>
struct Later {
  Struct known;
  int64_t more[3] = {};
  explicit Later(const Struct& from) : known(from) { known.struct_size = sizeof(Later); }
};

// A call with each of the structs, every other argument right.
struct Calls {
  EncoderLayer layers{kChannels, 16, {2, 2, 2, 1, 2, 2}, 1};
  Floats x = random(kTokens * kChannels, 2);
  Floats y = Floats(kTokens * kChannels);
  Offsets offsets = {0, 1, kTokens};
  std::vector<int64_t> ids = std::vector<int64_t>(kTokens, 1);
  squeezebert_mask mask = SQUEEZEBERT_MASK_INIT;
  squeezebert_attention_shape attention = SQUEEZEBERT_ATTENTION_SHAPE_INIT;
  squeezebert_embeddings embeddings = SQUEEZEBERT_EMBEDDINGS_INIT;
  squeezebert_encoder_shape encoder = SQUEEZEBERT_ENCODER_SHAPE_INIT;
  std::vector<squeezebert_layer> two;

  Calls() {
    layers.pack();
    two.assign(2, layers.get());
    mask.data = x.data();
    attention.sequences = encoder.sequences = 2;
    attention.query_offsets = attention.key_offsets = encoder.cu_seqlens = offsets.data();
    attention.heads = encoder.heads = 2;
    attention.head_size = kChannels / 2;
    attention.scale = 0.5f;
    embeddings.word = embeddings.position = embeddings.token_type = x.data();
    embeddings.vocabulary = embeddings.positions = embeddings.token_types = 2;
    embeddings.channels = kChannels;
    embeddings.layer_norm = two[0].output_layer_norm;
  }

  squeezebert_status attend(const squeezebert_attention_shape* shape, const squeezebert_mask* with_mask) {
    return squeezebert_attention(Context(), shape, x.data(), kChannels, x.data(), kChannels, x.data(), kChannels,
                                 with_mask, y.data(), kChannels);
  }
  squeezebert_status project(const squeezebert_attention_shape* shape, const squeezebert_mask* with_mask) {
    return squeezebert_grouped_qkv_attention(Context(), shape, x.data(), kChannels, &two[0].query, &two[0].key,
                                             &two[0].value, with_mask, y.data(), kChannels);
  }
  squeezebert_status embed(const squeezebert_embeddings* tables) {
    return squeezebert_embedding_layer_norm(Context(), kTokens, ids.data(), nullptr, ids.data(), tables, y.data(),
                                            kChannels);
  }
  squeezebert_status encode(const squeezebert_encoder_shape* shape, const squeezebert_layer* first,
                            const squeezebert_mask* with_mask = nullptr) {
    return squeezebert_encoder(Context(), shape, first, 2, x.data(), kChannels, with_mask, y.data(), kChannels);
  }
};

// `call` with the struct as it is, and with every size that it must not have.
template <class Struct, class Call>
void check_sizes(Calls& calls, const std::string& name, const Struct& good, const Call& call) {
  OK(call(&good));
  const Floats expected = calls.y;
  const auto refused = [&](const Struct& bad, const std::string& text) {
    CHECK(call(&bad) == kInvalid && squeezebert_last_error() == name + ": expected " + text);
  };
  for (const size_t size : {size_t{0}, size_t{1}, sizeof(Struct) - 8, sizeof(Struct) + 4, size_t{4104}, SIZE_MAX}) {
    Struct bad = good;
    bad.struct_size = size;
    refused(bad, "a struct_size of " + std::to_string(sizeof(Struct)) + ", got " + std::to_string(size));
  }
  Later<Struct> later(good);
  std::fill(calls.y.begin(), calls.y.end(), 0.0f);
  OK(call(&later.known));
  CHECK(same_bits(calls.y, expected));
  later.more[2] = 1;
  refused(later.known, "zeros after the " + std::to_string(sizeof(Struct)) +
                           " bytes that this version knows, got a later version's members");
}

void test_sizes() {
  Calls calls;
  check_sizes(calls, "shape", calls.attention, [&](auto* shape) { return calls.attend(shape, nullptr); });
  check_sizes(calls, "shape", calls.attention, [&](auto* shape) { return calls.project(shape, nullptr); });
  check_sizes(calls, "mask", calls.mask, [&](auto* mask) { return calls.attend(&calls.attention, mask); });
  check_sizes(calls, "mask", calls.mask, [&](auto* mask) { return calls.project(&calls.attention, mask); });
  check_sizes(calls, "embeddings", calls.embeddings, [&](auto* tables) { return calls.embed(tables); });
  check_sizes(calls, "shape", calls.encoder, [&](auto* shape) { return calls.encode(shape, calls.two.data()); });
  check_sizes(calls, "mask", calls.mask,
              [&](auto* mask) { return calls.encode(&calls.encoder, calls.two.data(), mask); });
}

// An array of layers is as wide as its first one says, and all of them must say so.
void test_layers() {
  Calls calls;
  OK(calls.encode(&calls.encoder, calls.two.data()));
  const Floats expected = calls.y;
  Later<squeezebert_layer> later[] = {Later(calls.two[0]), Later(calls.two[1])};
  std::fill(calls.y.begin(), calls.y.end(), 0.0f);
  OK(calls.encode(&calls.encoder, &later[0].known));
  CHECK(same_bits(calls.y, expected));
  const auto refused = [&](const squeezebert_layer* first, const std::string& text) {
    CHECK(calls.encode(&calls.encoder, first) == kInvalid && squeezebert_last_error() == text);
  };
  const std::string size = std::to_string(sizeof(squeezebert_layer));
  later[1].more[0] = 1;
  refused(&later[0].known, "layer 1: squeezebert_layer: expected zeros after the " + size +
                               " bytes that this version knows, got a later version's members");
  calls.two[1].struct_size += 8;
  calls.two.push_back(squeezebert_layer{});
  refused(calls.two.data(), "layer 1: squeezebert_layer: expected the first layer's struct_size, " + size + ", got " +
                                std::to_string(sizeof(squeezebert_layer) + 8));
  calls.two[1].struct_size = 0;
  refused(calls.two.data(), "layer 1: squeezebert_layer: expected a struct_size of " + size + ", got 0");
  calls.two[0].struct_size = 0;
  refused(calls.two.data(), "layer 0: squeezebert_layer: expected a struct_size of " + size + ", got 0");
}

}  // namespace

int main() {
  test_sizes();
  test_layers();
  return check_result();
}
