// The definitions of the operators, in float64 and plain loops, and how far each format may be from them.
#pragma once

#include <algorithm>
#include <limits>

#include "support.h"

namespace tests {

using Doubles = std::vector<double>;

inline Doubles widen(const Floats& x) { return {x.begin(), x.end()}; }

// Half the distance from 1 to the next float32, float16, bfloat16.
constexpr double kFloatRoundoff = 0x1p-24;
constexpr double kHalfRoundoff = 0x1p-11;
constexpr double kBFloatRoundoff = 0x1p-8;

// int8's are half a step of 127 to the largest of a row; what it computes exactly is tests/cpp/int8.cc.
constexpr double kInt8Roundoff = 1.0 / 254;

// Of products and sums.
inline double unit_roundoff() {
  return multiplies_half() ? kHalfRoundoff : multiplies_bfloat() ? kBFloatRoundoff : kFloatRoundoff;
}

// A number as g_format stores it: the nearest of the format's, which are at least 2^-24 (float16) or 2^-133 (bfloat16)
// apart and end below 2^16 or 2^128.
inline double stored(double x) {
  if (g_format == SQUEEZEBERT_FLOAT32 || g_format == SQUEEZEBERT_INT8 || !std::isfinite(x) || x == 0.0) return x;
  const bool half = g_format == SQUEEZEBERT_FLOAT16;
  const double step = ldexp(1.0, half ? std::max(ilogb(x) - 10, -24) : std::max(ilogb(x) - 7, -133));
  const double rounded = nearbyint(x / step) * step;
  return fabs(rounded) < (half ? 0x1p16 : 0x1p128) ? rounded : copysign(INFINITY, rounded);
}

// Of a chain of reductions whose lengths add up to `terms`, on values of at most about `size`. Roundings go up as often
// as down, so they add up like the square root of their number; 4 leaves a dozen standard deviations.
// With 16-bit formats, attention rounds keys and values that are results themselves, on every ISA.
inline double bound(int64_t terms, double size = 1.0) {
  const double roundoff = g_format == SQUEEZEBERT_INT8       ? kInt8Roundoff
                          : g_format == SQUEEZEBERT_FLOAT16  ? kHalfRoundoff
                          : g_format == SQUEEZEBERT_BFLOAT16 ? kBFloatRoundoff
                                                             : kFloatRoundoff;
  return (2.0 + 4.0 * sqrt(static_cast<double>(terms))) * roundoff * size;
}

struct Exact {
  Doubles values;
  Doubles bounds;  // element by element
};

// A convolution along each sequence ('same' padding). The bound is the rounding of `terms` additions, as above, of
// partial sums that the sum of absolute values stands in for.
inline Exact exact_conv(const Conv& conv, const Offsets& offsets, const Doubles& x) {
  const squeezebert_conv_shape& shape = conv.shape;
  const int64_t depth = shape.in_channels / shape.groups, columns = shape.out_channels / shape.groups;
  const int64_t taps = shape.kernel_size;
  const double roundings = 2.0 + sqrt(static_cast<double>(depth * taps));
  Exact y;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t t = offsets[s]; t < offsets[s + 1]; ++t) {
      for (int64_t o = 0; o < shape.out_channels; ++o) {
        double sum = conv.bias.empty() ? 0.0 : conv.bias[static_cast<size_t>(o)];
        double magnitude = fabs(sum), quantized = 0.0;
        for (int64_t tap = 0; tap < taps; ++tap) {
          const int64_t from = t + tap - taps / 2;
          if (from < offsets[s] || from >= offsets[s + 1]) continue;
          const double* row = &x[static_cast<size_t>(from * shape.in_channels + o / columns * depth)];
          const float* weight = &conv.weight[static_cast<size_t>(o * depth * taps + tap)];
          double weights = 0.0, most_weight = 0.0, inputs = 0.0, most_input = 0.0;
          for (int64_t i = 0; i < depth; ++i) {
            const double factor = stored(weight[i * taps]), product = factor * row[i];
            sum += product;
            magnitude += fabs(product);
            weights += fabs(factor), inputs += fabs(row[i]);
            most_weight = std::max(most_weight, fabs(factor)), most_input = std::max(most_input, fabs(row[i]));
          }
          // Every factor is off by half a step at most.
          if (g_format == SQUEEZEBERT_INT8) {
            const double weight_step = kInt8Roundoff * most_weight, input_step = kInt8Roundoff * most_input;
            quantized += 1.0001 * (weights * input_step + inputs * weight_step +
                                   static_cast<double>(depth) * weight_step * input_step);
          }
        }
        y.values.push_back(sum);
        y.bounds.push_back(roundings * unit_roundoff() * magnitude + quantized);
      }
    }
  }
  return y;
}

inline Exact exact_conv(const Conv& conv, const Doubles& x) {
  return exact_conv(conv, {0, static_cast<int32_t>(static_cast<int64_t>(x.size()) / conv.shape.in_channels)}, x);
}

// gelu' is at most 1.13, and ours errs by 3e-7 |x| (csrc/math/gelu.h).
inline Exact exact_gelu(Exact x) {
  for (size_t i = 0; i < x.values.size(); ++i) {
    const double v = x.values[i];
    x.values[i] = v * (1.0 + erf(v / sqrt(2.0))) / 2.0;
    x.bounds[i] = 1.13 * x.bounds[i] + 3e-7 * fabs(v);
  }
  return x;
}

inline Doubles add(Doubles x, const Doubles& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  return x;
}

// *magnifies: the most by which a row's error is multiplied, 1 / its standard deviation.
inline Doubles exact_layer_norm(const Norm& norm, Doubles x, double* magnifies) {
  const size_t channels = norm.weight.size();
  for (size_t row = 0; row < x.size(); row += channels) {
    double mean = 0.0, variance = 0.0;
    for (size_t c = 0; c < channels; ++c) mean += x[row + c] / static_cast<double>(channels);
    for (size_t c = 0; c < channels; ++c) variance += pow(x[row + c] - mean, 2) / static_cast<double>(channels);
    const double scale = 1.0 / sqrt(variance + norm.epsilon);
    if (channels > 1) *magnifies = std::max(*magnifies, scale);
    for (size_t c = 0; c < channels; ++c) x[row + c] = (x[row + c] - mean) * scale * norm.weight[c] + norm.bias[c];
  }
  return x;
}

// A row of scores that is -infinity throughout gives zeros.
inline Doubles exact_attention(const squeezebert_attention_shape& shape, const Doubles& query, const Doubles& key,
                               const Doubles& value, const squeezebert_mask* mask) {
  const int64_t channels = shape.heads * shape.head_size;
  Doubles output(query.size());
  for (int64_t s = 0; s < shape.sequences; ++s) {
    const int64_t first_key = shape.key_offsets[s], keys = shape.key_offsets[s + 1] - first_key;
    for (int64_t h = 0; h < shape.heads; ++h) {
      for (int64_t i = shape.query_offsets[s]; i < shape.query_offsets[s + 1]; ++i) {
        const auto at = [&](const Doubles& x, int64_t row, int64_t c) {
          return x[static_cast<size_t>(row * channels + h * shape.head_size + c)];
        };
        Doubles scores(static_cast<size_t>(keys));
        double largest = -std::numeric_limits<double>::max(), sum = 0.0;
        for (int64_t j = 0; j < keys; ++j) {
          double& score = scores[static_cast<size_t>(j)];
          for (int64_t c = 0; c < shape.head_size; ++c) {
            score += at(query, i, c) * stored(at(key, first_key + j, c));
          }
          score *= shape.scale;
          if (mask) {
            score += mask->data[s * mask->sequence_stride + h * mask->head_stride +
                                (i - shape.query_offsets[s]) * mask->query_stride + j];
          }
          largest = std::max(largest, score);
        }
        for (double& score : scores) sum += score = exp(score - largest);
        for (int64_t c = 0; c < shape.head_size && sum > 0.0; ++c) {
          double& y = output[static_cast<size_t>(i * channels + h * shape.head_size + c)];
          for (int64_t j = 0; j < keys; ++j) {
            y += scores[static_cast<size_t>(j)] / sum * stored(at(value, first_key + j, c));
          }
        }
      }
    }
  }
  return output;
}

inline Doubles exact_ffn(const Conv& intermediate, const Conv& output, const Norm& norm, const Doubles& x,
                         double* magnifies) {
  const Doubles inner = exact_gelu(exact_conv(intermediate, x)).values;
  return exact_layer_norm(norm, add(exact_conv(output, inner).values, x), magnifies);
}

inline Doubles exact_layer(const EncoderLayer& layer, const Offsets& offsets, int64_t heads, const Doubles& x,
                           const squeezebert_mask* mask, double* magnifies) {
  const int64_t head_size = layer.query.shape.out_channels / heads;
  const squeezebert_attention_shape shape = {sizeof(squeezebert_attention_shape),
                                             static_cast<int64_t>(offsets.size()) - 1,
                                             offsets.data(),
                                             offsets.data(),
                                             heads,
                                             head_size,
                                             1.0f / sqrtf(static_cast<float>(head_size)),
                                             g_format,
                                             g_format};
  const Doubles context = exact_attention(shape, exact_conv(layer.query, x).values, exact_conv(layer.key, x).values,
                                          exact_conv(layer.value, x).values, mask);
  const Doubles middle =
      exact_layer_norm(layer.post_attention_norm, add(exact_conv(layer.post_attention, context).values, x), magnifies);
  return exact_ffn(layer.intermediate, layer.output, layer.output_norm, middle, magnifies);
}

// Every element within its bound, or both NaN, or the same infinity. Tells of the worst only.
inline void check_close(const char* what, const Floats& got, const Doubles& expected, const Doubles& bounds) {
  CHECK(got.size() == expected.size());
  if (got.size() != expected.size()) return;
  size_t failed = 0, worst = 0;
  double most = 1.0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) ? std::isnan(expected[i]) : got[i] == expected[i]) continue;
    double ratio = fabs(got[i] - expected[i]) / bounds[i];
    if (!(ratio <= 1.0)) ++failed;
    if (std::isnan(ratio)) ratio = std::numeric_limits<double>::infinity();
    if (ratio > most) most = ratio, worst = i;
  }
  if (failed == 0) return;
  fprintf(stderr, "%s: %zu of %zu are wrong; number %zu is %.9g, expected %.9g within %.3g\n", what, failed, got.size(),
          worst, got[worst], expected[worst], bounds[worst]);
  ++check_failures;
}

inline void check_close(const char* what, const Floats& got, const Exact& expected) {
  check_close(what, got, expected.values, expected.bounds);
}

// One bound for all elements: bound of their largest.
inline void check_close(const char* what, const Floats& got, const Doubles& expected, int64_t terms,
                        double magnifies = 1.0) {
  double size = 1.0;
  for (const double value : expected) size = std::isfinite(value) ? std::max(size, fabs(value)) : size;
  check_close(what, got, expected, Doubles(expected.size(), bound(terms, size * std::max(1.0, magnifies))));
}

}  // namespace tests
