/* squeezebert.h: the C API of the SqueezeBERT CPU kernels, and the only public header.
 *
 * SqueezeBERT (Iandola et al. 2020, arXiv 2006.11316) is BERT whose position-wise fully-connected layers are grouped
 * 1x1 convolutions. This library runs its encoder, and every piece of it, on Arm and x86 CPUs, in float32, in int8, or
 * with float16 or bfloat16 weights.
 *
 * Conventions, for every function:
 *  - Layout is token-major: a matrix of `tokens` rows and `channels` columns, channels contiguous, consecutive rows
 *    `stride` floats apart (stride >= channels, also where there is one row or none). Group g of a grouped convolution
 *    owns the channels [g * in/groups, (g+1) * in/groups) of its input and likewise of its output.
 *  - A batch is the concatenation of its sequences. `cu_seqlens` holds sequences + 1 offsets in tokens, the first 0,
 *    never decreasing; sequence s is rows cu_seqlens[s] .. cu_seqlens[s+1]. An empty sequence or batch is valid.
 *  - Weights are packed once (squeezebert_pack), into memory the caller owns. A packed weight knows its shape, its
 *    format and the product it was packed for; a foreign one is refused with SQUEEZEBERT_BAD_PACK.
 *  - Biases may be NULL (then zero). No float of an output may be one of an input, weights and biases included (columns
 *    of one matrix are apart), except where a function says so. Pointers are aligned as their type is.
 *  - Whatever floating-point environment a thread has (flush-to-zero, another rounding), results are those of the
 *    default one, and the thread finds its own again afterwards.
 *  - Results are bit-identical whatever the batch around a row and the number of threads, and in float32 and int8 on
 *    every CPU (SQUEEZEBERT_NUMERICS).
 *  - Structs that later versions may extend begin with struct_size, their sizeof; SQUEEZEBERT_..._INIT sets it, and
 *    all else to nothing. A larger struct, of a later version, is taken if all that is new to this one is zero. The
 *    others (squeezebert_conv_shape, _linear and _layer_norm, which stand inside of those) stay as they are.
 *  - No function throws, aborts or prints. Each returns a status; squeezebert_last_error() describes the last failure
 *    of the calling thread: which argument, what was expected, what came.
 */
#ifndef SQUEEZEBERT_H
#define SQUEEZEBERT_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header: major.minor.patch. Before 1.0 every minor version may break programs, and the shared
 * library's SONAME ends in major.minor. */
#define SQUEEZEBERT_VERSION_MAJOR 0
#define SQUEEZEBERT_VERSION_MINOR 1
#define SQUEEZEBERT_VERSION_PATCH 0
#define SQUEEZEBERT_VERSION "0.1.0"

#ifndef SQUEEZEBERT_API
#if defined(__GNUC__)
#define SQUEEZEBERT_API __attribute__((visibility("default")))
#else
#define SQUEEZEBERT_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum squeezebert_status {
  SQUEEZEBERT_OK = 0,
  SQUEEZEBERT_INVALID_ARGUMENT = 1, /* a pointer, size, stride or offset that cannot be right */
  SQUEEZEBERT_UNSUPPORTED_ISA = 2,  /* the CPU lacks the ISA or product asked for, or the name is unknown */
  SQUEEZEBERT_BAD_PACK = 3,         /* not a packed weight or layer, or one of another product, version or shape */
  SQUEEZEBERT_OUT_OF_MEMORY = 4,
  SQUEEZEBERT_HOST_ERROR = 5 /* the host's parallel_for did not call the body once for every worker */
} squeezebert_status;

/* Text of the calling thread's last failure; "" before the first. Valid until that thread's next failure. */
SQUEEZEBERT_API const char* squeezebert_last_error(void);

/* The version of the library that is running: SQUEEZEBERT_VERSION of the header it was built with. */
SQUEEZEBERT_API const char* squeezebert_version(void);

/* ---- formats, instruction sets, products ------------------------------------------------------------------------- */

/* What a right side (a weight; in attention keys and values) is packed as. Activations and biases are float32 always,
 * and so is all that follows a product: bias, GELU, residual, softmax, LayerNorm.
 *
 * SQUEEZEBERT_FLOAT16 halves the memory that weights take and stream. They are rounded to float16. On Arm cores with
 * float16 arithmetic (Armv8.2 asimdhp) so are the values they are multiplied with; 64 products at a time are added up
 * in float16, at twice float32's rate, and those sums in float32. On all others products and sums are float32. Values
 * beyond 65504 become infinite.
 *
 * SQUEEZEBERT_BFLOAT16 halves the memory too: weights are rounded to bfloat16, which has float32's range and 8 bits of
 * its 24. Where the CPU has instructions for it that are faster than float32's (AVX512-BF16 on Zen 4 and 5), so are the
 * values they are multiplied with; those instructions round sums in their own way and take denormals for zeros. On all
 * others products and sums are float32.
 *
 * SQUEEZEBERT_INT8 takes a quarter of the memory: whole numbers from -127 to 127, and a float32 scale for each column
 * (an output channel of one tap, a head's part of a key). The rows that they are multiplied with are quantized while a
 * function runs, with a scale for each row of a product: each token and group of a convolution, each query of a head.
 * So there is nothing to calibrate. All of it is exact or rounded once to nearest even, as follows, and so are results:
 *
 *   m = the largest magnitude of a column or row, L = 127, scale = m / L, value = round(x * (L / m))
 *   m < 2^-100: the scale and all values are 0; NaN or infinity in it: the scale is NaN, all values are 0
 *   y = fma((float)(sum of value * value) * row scale, column scale, start), start = bias, 0 or what is added to
 *
 * So NaN or infinity in a row makes what that row gives NaN (a token's outputs of that group), and in a column what
 * that gives. A sum has at most 65536 products.
 *
 * Attention's values have one scale for each key and head instead. It multiplies that key's exponential, and the row of
 * those products, which are never negative, is the left side, with L = 255; the columns' scales are 1. Then comes the
 * division by the sum of the exponentials, which are float32. NaN or infinity in a value makes its head's outputs of
 * the sequence NaN. */
typedef enum squeezebert_format
#if defined(__cplusplus)
    : int /* so that C++ may read, and refuse, a number that is no format */
#endif
{ SQUEEZEBERT_FLOAT32 = 0,
  SQUEEZEBERT_FLOAT16 = 1,
  SQUEEZEBERT_BFLOAT16 = 2,
  SQUEEZEBERT_INT8 = 3 } squeezebert_format;

/* "float32", "float16", "bfloat16", "int8"; NULL for a number that is no format. */
SQUEEZEBERT_API const char* squeezebert_format_name(squeezebert_format format);

/* What results are computed with, beyond the formulas: the order of every sum, the polynomials, the roundings. Results
 * of two libraries with the same number have the same bits, on every instruction set (float16 and bfloat16: where
 * products are float32), but for the sign and payload of NaNs. A packed weight belongs to the number it was packed
 * with. */
#define SQUEEZEBERT_NUMERICS 1
SQUEEZEBERT_API int32_t squeezebert_numerics(void); /* of the library that runs */

/* Names of the ISAs that were built in and that this CPU can run, best first: "avx512", "avx2", "neon", "scalar". NULL
 * for an index past the last. */
SQUEEZEBERT_API const char* squeezebert_isa_name(int index);

/* The ISA in use: the one last forced, else the one in the environment variable SQUEEZEBERT_FORCE_ISA when the library
 * was first called, else the best one. Fails (with *name = NULL) when the variable names an ISA that cannot be used; so
 * does every other call then, until one is forced. */
SQUEEZEBERT_API squeezebert_status squeezebert_active_isa(const char** name);

/* Uses the named ISA from now on, in all threads; NULL forgets it: the variable's or the best one again. Weights packed
 * for products that are then not in use must be packed again. Not to be called while another call is running. */
SQUEEZEBERT_API squeezebert_status squeezebert_force_isa(const char* name);

/* A product is the code that multiplies by right sides of one format: "float32_avx512", "float16_neon_fp16". Those that
 * this CPU can run, best first within a format; NULL for an index past the last. */
SQUEEZEBERT_API const char* squeezebert_product_name(int index);

/* Why that product is in use for its format or is not, for people to read: "chosen", "forced", "of another instruction
 * set", "a better one is there", or what speaks against it on this machine. NULL for an index past the last. */
SQUEEZEBERT_API const char* squeezebert_product_reason(int index);

/* The product in use for a format: the one last forced, else the one that the environment variable
 * SQUEEZEBERT_FORCE_PRODUCT named when a product was first wanted (several have commas between them), else the best one
 * of the ISA in use. Fails (with *name = NULL) when the variable names one that cannot be used; so does every other
 * call that needs a product then, until one is forced for its format. */
SQUEEZEBERT_API squeezebert_status squeezebert_active_product(squeezebert_format format, const char** name);

/* Uses the named product for its format from now on, in all threads, whatever the ISA in use (which then computes what
 * is no product); NULL forgets all that were forced. As squeezebert_force_isa otherwise. */
SQUEEZEBERT_API squeezebert_status squeezebert_force_product(const char* name);

/* Measured rate of fused multiply-adds of the product in use for `format` on the calling thread, in GFLOP/s (2 per
 * FMA), the best of several runs that take about `seconds` together. This is the denominator of every "share of peak"
 * we report. */
SQUEEZEBERT_API squeezebert_status squeezebert_measure_peak(squeezebert_format format, double seconds, double* gflops);

/* ---- threads and working memory: the context --------------------------------------------------------------------- */

/* A parallel_for given by the host: calls body(argument, worker) once for every worker in [0, workers), in any order,
 * at the same time if it likes, and returns when all have returned. The library owns no threads but those of its pool.
 * A worker that was left out, called twice or unknown makes the call fail with SQUEEZEBERT_HOST_ERROR, its output
 * undefined. A body must not be called, nor be running, after parallel_for has returned. */
typedef void (*squeezebert_parallel_for)(void* host, int32_t workers, void (*body)(void* argument, int32_t worker),
                                         void* argument);

/* Holds the parallel_for, the number of workers and the working memory, which grows to the largest call seen and is
 * then reused, so a steady-state call allocates nothing. One call at a time may use a context (another is refused with
 * SQUEEZEBERT_INVALID_ARGUMENT); threads that compute at the same time want one each. */
typedef struct squeezebert_context squeezebert_context;

/* parallel_for = NULL: the library's own thread pool. workers: 1 to SQUEEZEBERT_MAX_WORKERS.
 *
 * There is one pool for all contexts. It starts threads when a call needs them (and again in a forked child), as many
 * as that call's workers but one, which is the calling thread; after some seconds in which no call wanted them they
 * end. While one context computes on them, a call in another does all of its work on its own thread: contexts that
 * compute at the same time share cores best with one worker each. The threads block all signals but those of faults. */
#define SQUEEZEBERT_MAX_WORKERS 4096
SQUEEZEBERT_API squeezebert_status squeezebert_context_create(squeezebert_parallel_for parallel_for, void* host,
                                                              int32_t workers, squeezebert_context** context);
SQUEEZEBERT_API void squeezebert_context_destroy(squeezebert_context* context);
SQUEEZEBERT_API squeezebert_status squeezebert_context_set_workers(squeezebert_context* context, int32_t workers);
SQUEEZEBERT_API int32_t squeezebert_context_workers(const squeezebert_context* context);
/* Workers that make sense by default: the CPUs that this process may run on (its affinity and, on Linux, the quota of
 * its cgroups, rounded up), 1 to SQUEEZEBERT_MAX_WORKERS. */
SQUEEZEBERT_API int32_t squeezebert_default_workers(void);
/* Ends the pool's threads and returns when they are gone; a later call that needs them starts them again. To be called
 * before dlclose() of a plugin that has this library linked into it statically, whose code they would sleep in. (The
 * shared library stays loaded by itself.) SQUEEZEBERT_INVALID_ARGUMENT, and nothing done, while a call is computing on
 * them. */
SQUEEZEBERT_API squeezebert_status squeezebert_pool_shutdown(void);
/* Bytes of working memory held now; and: give it back, unless a call is using it. */
SQUEEZEBERT_API size_t squeezebert_context_memory(const squeezebert_context* context);
SQUEEZEBERT_API void squeezebert_context_release_memory(squeezebert_context* context);
/* Gives back the working memory of all contexts, of all threads, that no call is using; returns how many bytes. */
SQUEEZEBERT_API size_t squeezebert_release_memory(void);

/* ---- packed weights ---------------------------------------------------------------------------------------------- */

/* Shape of a grouped convolution along the sequence: weight [out_channels, in_channels / groups, kernel_size], as
 * torch.nn.Conv1d stores it. kernel_size is odd; 1 is the position-wise layer, padding is 'same' otherwise. */
typedef struct squeezebert_conv_shape {
  int64_t out_channels;
  int64_t in_channels;
  int64_t groups; /* divides both */
  int64_t kernel_size;
} squeezebert_conv_shape;

/* Bytes that the packed form takes for the product in use: a multiple of 64. */
SQUEEZEBERT_API squeezebert_status squeezebert_packed_size(const squeezebert_conv_shape* shape,
                                                           squeezebert_format format, size_t* bytes);

/* Packs a contiguous float32 weight as `format`. `packed` has at least squeezebert_packed_size bytes, aligned to 4; to
 * 64 for speed. */
SQUEEZEBERT_API squeezebert_status squeezebert_pack(const squeezebert_conv_shape* shape, squeezebert_format format,
                                                    const float* weight, void* packed, size_t packed_bytes);

/* The weight again, [out_channels, in_channels / groups, kernel_size], of weight_bytes: what was packed, rounded to the
 * format. This is the portable form: packed anywhere, it gives the same packed weight (of int8, squeezebert_unpack_
 * quantized gives that; here each value is multiplied by its scale). */
SQUEEZEBERT_API squeezebert_status squeezebert_unpack(const void* packed, size_t packed_bytes, float* weight,
                                                      size_t weight_bytes);

/* Packing as SQUEEZEBERT_INT8 in two steps, of which the first gives the portable form. values: [out_channels,
 * in_channels / groups, kernel_size], any of them; scales: [out_channels, 1, kernel_size], contiguous, of which a
 * column's values are multiples. A group has at most 65536 input channels. squeezebert_unpack_quantized gives back what
 * was packed; SQUEEZEBERT_BAD_PACK for a weight of another format. No output may overlap an input or the other output.
 */
SQUEEZEBERT_API squeezebert_status squeezebert_quantize(const squeezebert_conv_shape* shape, const float* weight,
                                                        int8_t* values, float* scales);
SQUEEZEBERT_API squeezebert_status squeezebert_pack_quantized(const squeezebert_conv_shape* shape, const int8_t* values,
                                                              const float* scales, void* packed, size_t packed_bytes);
SQUEEZEBERT_API squeezebert_status squeezebert_unpack_quantized(const void* packed, size_t packed_bytes, int8_t* values,
                                                                float* scales);

/* Reads shape and format (which may be NULL) back from a packed weight; SQUEEZEBERT_BAD_PACK when it is none, or not
 * for the product in use. */
SQUEEZEBERT_API squeezebert_status squeezebert_packed_shape(const void* packed, size_t packed_bytes,
                                                            squeezebert_conv_shape* shape, squeezebert_format* format);

/* A packed weight with its bias [out_channels]; the form in which the functions below take a layer. */
typedef struct squeezebert_linear {
  const void* packed;
  size_t packed_bytes;
  const float* bias; /* may be NULL */
} squeezebert_linear;

/* weight and bias [channels]; epsilon is added to the variance (SqueezeBERT: 1e-12). */
typedef struct squeezebert_layer_norm {
  const float* weight;
  const float* bias;
  float epsilon;
} squeezebert_layer_norm;

/* ---- single operators: same names as torch.ops.squeezebert.* ----------------------------------------------------- */

/* output = conv(input): [tokens, in_channels] -> [tokens, out_channels]. kernel_size 1. */
SQUEEZEBERT_API squeezebert_status squeezebert_grouped_conv1x1(squeezebert_context* context, int64_t tokens,
                                                               const float* input, int64_t input_stride,
                                                               const squeezebert_linear* layer, float* output,
                                                               int64_t output_stride);

/* output = gelu(conv(input)), exact: gelu(x) = x * (1 + erf(x / sqrt(2))) / 2. */
SQUEEZEBERT_API squeezebert_status squeezebert_grouped_conv1x1_gelu(squeezebert_context* context, int64_t tokens,
                                                                    const float* input, int64_t input_stride,
                                                                    const squeezebert_linear* layer, float* output,
                                                                    int64_t output_stride);

/* output = layer_norm(conv(input) + residual); residual [tokens, out_channels]. */
SQUEEZEBERT_API squeezebert_status squeezebert_grouped_conv1x1_add_layer_norm(
    squeezebert_context* context, int64_t tokens, const float* input, int64_t input_stride,
    const squeezebert_linear* layer, const float* residual, int64_t residual_stride,
    const squeezebert_layer_norm* layer_norm, float* output, int64_t output_stride);

/* output[t] = bias + sum over k of weight[:, :, k] input[t + k - kernel_size / 2], zeros outside each sequence. */
SQUEEZEBERT_API squeezebert_status squeezebert_grouped_conv1d(squeezebert_context* context, int64_t sequences,
                                                              const int32_t* cu_seqlens, const float* input,
                                                              int64_t input_stride, const squeezebert_linear* layer,
                                                              float* output, int64_t output_stride);

/* Additive attention mask: element (sequence s, head h, query i, key j) at data[s * sequence_stride + h * head_stride +
 * i * query_stride + j]. A stride of 0 broadcasts; any other is at least the keys of the longest sequence. Output must
 * not lie between its first and its last element. Masking with -FLT_MAX leaves a fully masked row uniform, as Hugging
 * Face gives; a row that is -infinity throughout gives zeros. */
typedef struct squeezebert_mask {
  size_t struct_size;
  const float* data;
  int64_t sequence_stride;
  int64_t head_stride;
  int64_t query_stride;
} squeezebert_mask;
#define SQUEEZEBERT_MASK_INIT {sizeof(squeezebert_mask), NULL, 0, 0, 0}

/* Multi-head scaled dot-product attention: softmax(scale * Q K^T + mask) V for each sequence and head. Queries of
 * sequence s are rows query_offsets[s] .. query_offsets[s+1]; keys and values likewise by key_offsets. Head h owns
 * columns [h * head_size, (h+1) * head_size) of every matrix. mask may be NULL. */
typedef struct squeezebert_attention_shape {
  size_t struct_size;
  int64_t sequences;
  const int32_t* query_offsets;
  const int32_t* key_offsets;
  int64_t heads;
  int64_t head_size;
  float scale; /* finite; SqueezeBERT: 1 / sqrt(head_size) */
  /* What keys and values are packed as, as if they were weights. */
  squeezebert_format key_format;
  squeezebert_format value_format;
} squeezebert_attention_shape;
#define SQUEEZEBERT_ATTENTION_SHAPE_INIT \
  {sizeof(squeezebert_attention_shape), 0, NULL, NULL, 0, 0, 0.0f, SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT32}

SQUEEZEBERT_API squeezebert_status squeezebert_attention(squeezebert_context* context,
                                                         const squeezebert_attention_shape* shape, const float* query,
                                                         int64_t query_stride, const float* key, int64_t key_stride,
                                                         const float* value, int64_t value_stride,
                                                         const squeezebert_mask* mask, float* output,
                                                         int64_t output_stride);

/* Three projections of the same input, then attention. The projections' out_channels equal heads * head_size; shape's
 * query_offsets and key_offsets must be the same offsets. */
SQUEEZEBERT_API squeezebert_status squeezebert_grouped_qkv_attention(
    squeezebert_context* context, const squeezebert_attention_shape* shape, const float* input, int64_t input_stride,
    const squeezebert_linear* query, const squeezebert_linear* key, const squeezebert_linear* value,
    const squeezebert_mask* mask, float* output, int64_t output_stride);

/* output = layer_norm(conv_output(gelu(conv_intermediate(input))) + input). */
SQUEEZEBERT_API squeezebert_status squeezebert_grouped_ffn(squeezebert_context* context, int64_t tokens,
                                                           const float* input, int64_t input_stride,
                                                           const squeezebert_linear* intermediate,
                                                           const squeezebert_linear* output_layer,
                                                           const squeezebert_layer_norm* layer_norm, float* output,
                                                           int64_t output_stride);

/* Three embedding tables, [rows, channels] each, contiguous, of at least one row. */
typedef struct squeezebert_embeddings {
  size_t struct_size;
  const float* word;
  int64_t vocabulary;
  const float* position;
  int64_t positions;
  const float* token_type;
  int64_t token_types;
  int64_t channels;
  squeezebert_layer_norm layer_norm;
} squeezebert_embeddings;
#define SQUEEZEBERT_EMBEDDINGS_INIT {sizeof(squeezebert_embeddings), NULL, 0, NULL, 0, NULL, 0, 0, {NULL, NULL, 0.0f}}

/* output = layer_norm(word[input_ids] + position[position_ids] + token_type[token_type_ids]). token_type_ids may be
 * NULL (then all 0). Every id is checked before anything is written. */
SQUEEZEBERT_API squeezebert_status squeezebert_embedding_layer_norm(
    squeezebert_context* context, int64_t tokens, const int64_t* input_ids, const int64_t* token_type_ids,
    const int64_t* position_ids, const squeezebert_embeddings* embeddings, float* output, int64_t output_stride);

/* ---- the encoder ------------------------------------------------------------------------------------------------- */

/* One layer, paper section 3: y = ln1(post_attention(attention(query(x), key(x), value(x))) + x);
 * output = ln2(output(gelu(intermediate(y))) + y). Every linear has its own group count; groups = 1 everywhere is
 * BERT. */
typedef struct squeezebert_layer {
  size_t struct_size; /* of every layer of a call the same: it is how far apart they are */
  squeezebert_linear query;
  squeezebert_linear key;
  squeezebert_linear value;
  squeezebert_linear post_attention; /* FFN1 */
  squeezebert_layer_norm post_attention_layer_norm;
  squeezebert_linear intermediate; /* FFN2 */
  squeezebert_linear output;       /* FFN3 */
  squeezebert_layer_norm output_layer_norm;
  squeezebert_format key_format; /* of attention, as in squeezebert_attention_shape */
  squeezebert_format value_format;
} squeezebert_layer;
#define SQUEEZEBERT_LAYER_INIT                                                          \
  {sizeof(squeezebert_layer), {NULL, 0, NULL},     {NULL, 0, NULL},    {NULL, 0, NULL}, \
   {NULL, 0, NULL},           {NULL, NULL, 0.0f},  {NULL, 0, NULL},    {NULL, 0, NULL}, \
   {NULL, NULL, 0.0f},        SQUEEZEBERT_FLOAT32, SQUEEZEBERT_FLOAT32}

/* A layer in one piece of memory, which can be copied, written to a file and mapped again: the packed weights of
 * `layer`, its biases, layer norms and formats, each at a fixed place from the beginning, in the order in which they
 * are used. It says what it holds, and is refused where its weights are. Bytes that it takes: a multiple of 64. */
SQUEEZEBERT_API squeezebert_status squeezebert_packed_layer_size(const squeezebert_layer* layer, size_t* bytes);

/* `packed` has at least squeezebert_packed_layer_size bytes, aligned to 4; to 64 for speed. The layer is copied. */
SQUEEZEBERT_API squeezebert_status squeezebert_pack_layer(const squeezebert_layer* layer, void* packed,
                                                          size_t packed_bytes);

/* Fills in `layer` (SQUEEZEBERT_LAYER_INIT) as a view of `packed`: every pointer lies in it. New values may be written
 * there, as by squeezebert_pack of a weight of the same shape and format. SQUEEZEBERT_BAD_PACK when it is no packed
 * layer, or not for the products in use. */
SQUEEZEBERT_API squeezebert_status squeezebert_read_layer(const void* packed, size_t packed_bytes,
                                                          squeezebert_layer* layer);

typedef struct squeezebert_encoder_shape {
  size_t struct_size;
  int64_t sequences;
  const int32_t* cu_seqlens;
  int64_t heads;
  /* 0 or 1. 1: the output has one row per sequence, that of its first token (classification heads read no other), and
   * the last layer computes only what those rows need. Every sequence must then have a token. */
  int32_t first_token_only;
} squeezebert_encoder_shape;
#define SQUEEZEBERT_ENCODER_SHAPE_INIT {sizeof(squeezebert_encoder_shape), 0, NULL, 0, 0}

/* Runs `layers` in turn on the rows of `input`. `output` may be `input` (same pointer and stride) unless
 * first_token_only. */
SQUEEZEBERT_API squeezebert_status squeezebert_encoder(squeezebert_context* context,
                                                       const squeezebert_encoder_shape* shape,
                                                       const squeezebert_layer* layers, int64_t layer_count,
                                                       const float* input, int64_t input_stride,
                                                       const squeezebert_mask* mask, float* output,
                                                       int64_t output_stride);

/* ---- training, in float32 ---------------------------------------------------------------------------------------- */

/* One layer's forward pass that keeps what its backward pass needs, and that backward pass. Results do not depend on
 * the number of workers. Without dropout the output has the bits of squeezebert_encoder. */
typedef struct squeezebert_training {
  size_t struct_size;
  int64_t sequences;
  const int32_t* cu_seqlens;
  int64_t heads;
  /* Probabilities, 0 to below 1, with which a value is replaced by 0, the others being divided by 1 - probability:
   * those of post_attention's and output's results, and those of attention's probabilities. Which ones is a function of
   * the seed and of where the value stands (its sequence's number, its place in the sequence, head or layer, channel or
   * key), not of the rest of the batch. Every layer and step wants a seed of its own. */
  float hidden_dropout;
  float attention_dropout;
  uint64_t seed;
} squeezebert_training;
#define SQUEEZEBERT_TRAINING_INIT {sizeof(squeezebert_training), 0, NULL, 0, 0.0f, 0.0f, 0}

/* Packs a float32 weight [out_channels, in_channels / groups] (kernel_size 1) transposed within each group: the weight
 * of the convolution that takes the gradient of the output to that of the input. `packed` has at least the
 * squeezebert_packed_size of the shape with in_channels and out_channels exchanged. */
SQUEEZEBERT_API squeezebert_status squeezebert_pack_transposed(const squeezebert_conv_shape* shape, const float* weight,
                                                               void* packed, size_t packed_bytes);

/* Floats that the forward pass keeps: per token 6 rows of `channels` and one of intermediate_channels, a little more.
 */
SQUEEZEBERT_API squeezebert_status squeezebert_training_saved_floats(int64_t tokens, int64_t channels,
                                                                     int64_t intermediate_channels, size_t* floats);

/* The layer's output, [tokens, channels]. Its weights are packed as float32. `saved` is of at least
 * squeezebert_training_saved_floats, contiguous, and given to the backward pass as it is, on the same machine. */
SQUEEZEBERT_API squeezebert_status squeezebert_encoder_layer_training(
    squeezebert_context* context, const squeezebert_training* training, const squeezebert_layer* layer,
    const float* input, int64_t input_stride, const squeezebert_mask* mask, float* output, int64_t output_stride,
    float* saved, size_t saved_floats);

/* Where the gradient of a weight [out_channels, in_channels / groups] and of a bias [out_channels] goes, or of a
 * LayerNorm's [channels]; contiguous, overwritten. NULL: not computed. */
typedef struct squeezebert_gradient {
  float* weight;
  float* bias;
} squeezebert_gradient;

typedef struct squeezebert_layer_gradients {
  size_t struct_size;
  float* input; /* [tokens, channels], contiguous */
  squeezebert_gradient query;
  squeezebert_gradient key;
  squeezebert_gradient value;
  squeezebert_gradient post_attention;
  squeezebert_gradient post_attention_layer_norm;
  squeezebert_gradient intermediate;
  squeezebert_gradient output;
  squeezebert_gradient output_layer_norm;
} squeezebert_layer_gradients;
#define SQUEEZEBERT_LAYER_GRADIENTS_INIT                                                                             \
  {                                                                                                                  \
    sizeof(squeezebert_layer_gradients), NULL, {NULL, NULL}, {NULL, NULL}, {NULL, NULL}, {NULL, NULL}, {NULL, NULL}, \
        {NULL, NULL}, {NULL, NULL}, {                                                                                \
      NULL, NULL                                                                                                     \
    }                                                                                                                \
  }

/* The gradients, from that of the output, [tokens, channels]. `transposed` is the layer with its weights packed by
 * squeezebert_pack_transposed (its biases, but for those of LayerNorms, are not read); all else is as the forward pass
 * had it. What lies below the last gradient asked for is not computed. */
SQUEEZEBERT_API squeezebert_status squeezebert_encoder_layer_backward(
    squeezebert_context* context, const squeezebert_training* training, const squeezebert_layer* transposed,
    const float* input, int64_t input_stride, const squeezebert_mask* mask, const float* saved, size_t saved_floats,
    const float* grad_output, int64_t grad_output_stride, const squeezebert_layer_gradients* gradients);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SQUEEZEBERT_H */
