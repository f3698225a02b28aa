/* A small projection whose weights and rows are integers, so that every result is exact in any order. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "device.h"
#include <math.h>
#include <sys/resource.h>
#include <unistd.h>

enum { QUERY, KEY, VALUE, DECODER_WIDTH = 5, ENCODER_WIDTH = 7, QUERY_HEADS = 4, KEY_VALUE_HEADS = 2, HEAD_WIDTH = 3,
       VALUE_WIDTH = 2, LAYERS = 2, MOST_ROWS = 64, MOST_COLUMNS = 12 };

static const int test_heads[] = {QUERY_HEADS, KEY_VALUE_HEADS, KEY_VALUE_HEADS};
static const int test_widths[] = {HEAD_WIDTH, HEAD_WIDTH, VALUE_WIDTH};
static const int test_inputs[] = {DECODER_WIDTH, ENCODER_WIDTH, ENCODER_WIDTH};
static const int test_parts[] = {XQKV_PART_QUERY, XQKV_PART_KEY, XQKV_PART_VALUE};

static inline int test_columns(int part) { return test_heads[part] * test_widths[part]; }

static inline xqkv_spec test_spec(void) {
    xqkv_spec spec;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    spec.weight_dtype = XQKV_DTYPE_F32;
    spec.layer_count = LAYERS;
    spec.decoder_width = DECODER_WIDTH;
    spec.encoder_width = ENCODER_WIDTH;
    spec.query_heads = QUERY_HEADS;
    spec.key_value_heads = KEY_VALUE_HEADS;
    spec.head_width = HEAD_WIDTH;
    spec.value_head_width = VALUE_WIDTH;
    spec.query_bias = 1;
    spec.value_bias = 1;
    return spec;
}

/* `generation` tells versions of the weights apart. */
static inline float test_weight(int part, int layer, int output, int input, int generation) {
    return (float)((output * 7 + input * 3 + layer + part) % 11 - 5 + (input == 0 ? generation : 0));
}

static inline float test_bias(int part, int output) { return part == KEY ? 0 : (float)(output % 5 - 2); }

static inline float test_row(int row, int input) { return (float)((row * 5 + input) % 7 - 3); }

static inline float test_result(int part, int layer, int row, int output, int generation) {
    float sum = test_bias(part, output);
    for (int input = 0; input < test_inputs[part]; input++)
        sum += test_weight(part, layer, output, input, generation) * test_row(row, input);
    return sum;
}

/* Rows of a part's input. Filled at the first use, which a program with threads makes before it starts them. */
static inline const float *test_rows(int part) {
    static float rows[3][MOST_ROWS * ENCODER_WIDTH];
    static int filled[3];
    for (int at = 0; !filled[part] && at < MOST_ROWS * test_inputs[part]; at++)
        rows[part][at] = test_row(at / test_inputs[part], at % test_inputs[part]);
    if (!filled[part]) filled[part] = 1;
    return rows[part];
}

/* Writes an integer as one element of a dtype; below 256 every dtype has it exactly. f16 has a smaller exponent than
   the others, and a fraction that begins at another bit. */
static inline void store(void *elements, int dtype, int64_t at, float integer) {
    uint32_t bits;
    memcpy(&bits, &integer, sizeof bits);
    uint16_t bfloat = (uint16_t)(bits >> 16), half = 0;
    if (integer != 0) half = (uint16_t)((bfloat & 0x8000) | (((bits & INT32_MAX) >> 13) - (112 << 10)));
    if (dtype == XQKV_DTYPE_F32) memcpy((char *)elements + at * 4, &integer, 4);
    if (dtype == XQKV_DTYPE_F16) memcpy((char *)elements + at * 2, &half, 2);
    if (dtype == XQKV_DTYPE_BF16) memcpy((char *)elements + at * 2, &bfloat, 2);
}

static inline int holds(const void *elements, int dtype, int64_t at, float integer) {
    unsigned char expected[4];
    int64_t bytes = xqkv_dtype_bytes(dtype);
    store(expected, dtype, 0, integer);
    return memcmp((const char *)elements + at * bytes, expected, (size_t)bytes) == 0;
}

static inline xqkv_tensor test_tensor(const void *data, int rows, int columns) {
    xqkv_tensor tensor;
    CHECK_OK(xqkv_tensor_init(&tensor, sizeof tensor));
    tensor.dtype = XQKV_DTYPE_F32;
    tensor.data = data;
    tensor.rows = rows;
    tensor.columns = columns;
    return tensor;
}

static inline xqkv_status put_weight_as(xqkv_update *update, int layer, int part, int generation, int dtype) {
    float weight[MOST_COLUMNS * ENCODER_WIDTH];
    int inputs = test_inputs[part];
    for (int at = 0; at < test_columns(part) * inputs; at++)
        store(weight, dtype, at, test_weight(part, layer, at / inputs, at % inputs, generation));
    xqkv_tensor tensor = test_tensor(weight, test_columns(part), inputs);
    tensor.dtype = dtype;
    return xqkv_update_put(update, layer, test_parts[part], XQKV_KIND_WEIGHT, &tensor, &error);
}

static inline xqkv_status put_weight(xqkv_update *update, int layer, int part, int generation) {
    return put_weight_as(update, layer, part, generation, XQKV_DTYPE_F32);
}

static inline xqkv_status put_bias_as(xqkv_update *update, int layer, int part, int dtype) {
    float bias[MOST_COLUMNS];
    for (int output = 0; output < test_columns(part); output++) store(bias, dtype, output, test_bias(part, output));
    xqkv_tensor tensor = test_tensor(bias, test_columns(part), 1);
    tensor.dtype = dtype;
    return xqkv_update_put(update, layer, test_parts[part], XQKV_KIND_BIAS, &tensor, &error);
}

static inline xqkv_status put_bias(xqkv_update *update, int layer, int part) {
    return put_bias_as(update, layer, part, XQKV_DTYPE_F32);
}

/* Puts everything the spec has, of one generation. */
static inline void put_all(xqkv_update *update, int generation) {
    for (int layer = 0; layer < LAYERS; layer++)
        for (int part = QUERY; part <= VALUE; part++) {
            CHECK_OK(put_weight(update, layer, part, generation));
            if (part != KEY) CHECK_OK(put_bias(update, layer, part));
        }
}

static inline xqkv_context *test_context(int threads) {
    xqkv_context_options options;
    xqkv_context *context = NULL;
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.backend = on_cuda() ? XQKV_BACKEND_CUDA : XQKV_BACKEND_HOST;
    if (!on_cuda()) options.thread_count = threads;
    CHECK_OK(xqkv_context_create(&options, &context, &error));
    return context;
}

static inline void load(xqkv_projection *projection, int generation) {
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    put_all(update, generation);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
}

static inline xqkv_projection *test_projection(const xqkv_context *context, const xqkv_projection_options *options) {
    xqkv_spec spec = test_spec();
    xqkv_projection *projection = NULL;
    CHECK_OK(xqkv_projection_create(context, &spec, options, &projection, &error));
    return projection;
}

/* A loaded projection of the whole; its context lives on in it. */
static inline xqkv_projection *ready_projection(int threads) {
    xqkv_context *context = test_context(threads);
    xqkv_projection *projection = test_projection(context, NULL);
    load(projection, 0);
    CHECK_OK(xqkv_context_destroy(context, &error));
    return projection;
}

/* Lets the process have so many bytes more than it has, or as many as it likes. */
static inline void allow(int64_t bytes) {
    struct rlimit limit;
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%lld", &pages) == 1);
    if (file != NULL) fclose(file);
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes < 0 ? limit.rlim_max : (rlim_t)(pages * sysconf(_SC_PAGESIZE) + bytes);
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* Outputs of one call, poisoned. */
typedef struct {
    float parts[3][LAYERS * MOST_ROWS * MOST_COLUMNS];
} outputs;

static inline void poison(outputs *out) { memset(out, 0xff, sizeof *out); }

static inline int is_poisoned(const outputs *out) {
    const unsigned char *bytes = (const unsigned char *)out;
    for (size_t at = 0; at < sizeof *out; at++)
        if (bytes[at] != 0xff) return 0;
    return 1;
}

/* Scratch memory that every call of this program may lend. */
static inline void lend_workspace(xqkv_forward *call) {
    static unsigned char workspace[1 << 16] __attribute__((aligned(256)));
    call->workspace = workspace;
    call->workspace_bytes = sizeof workspace;
}

/* A call with so many rows of each side, packed outputs. */
static inline xqkv_forward test_call(outputs *out, int decoder_rows, int encoder_rows) {
    xqkv_forward call;
    xqkv_view *views[] = {&call.query, &call.key, &call.value};
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    if (decoder_rows > 0) call.decoder.data = test_rows(QUERY);
    if (encoder_rows > 0) call.encoder.data = test_rows(KEY);
    call.decoder.rows = decoder_rows;
    call.encoder.rows = encoder_rows;
    call.decoder.dtype = call.encoder.dtype = XQKV_DTYPE_F32;
    for (int part = QUERY; part <= VALUE; part++) {
        views[part]->data = out->parts[part];
        views[part]->dtype = XQKV_DTYPE_F32;
    }
    return call;
}

/* A good call with one field changed is refused, writes nothing, and passes again when it is mended. */
#define CALL_REFUSED(projection, field, value, status, word)                                              \
    do {                                                                                                  \
        static outputs out;                                                                               \
        xqkv_forward call = test_call(&out, 3, 4);                                                        \
        poison(&out);                                                                                     \
        call.field = (value);                                                                             \
        CHECK_REFUSED((status), (word), run_forward((projection), &call, NULL, &error));      \
        CHECK(is_poisoned(&out));                                                                         \
        call = test_call(&out, 3, 4);                                                                     \
        CHECK_OK(run_forward((projection), &call, NULL, &error));                             \
    } while (0)

/* Whether a packed output has exactly these rows of a layer, and poison behind them. */
static inline int has_rows(const outputs *out, int part, int layer, int rows, int generation) {
    int columns = test_columns(part);
    for (int at = 0; at < rows * columns; at++) {
        float expected = test_result(part, layer, at / columns, at % columns, generation);
        if (out->parts[part][at] == expected) continue;
        snprintf(check_detail, sizeof check_detail, "part %d, layer %d, row %d, column %d is %g, expected %g", part,
                 layer, at / columns, at % columns, (double)out->parts[part][at], (double)expected);
        return 0;
    }
    return isnan(out->parts[part][rows * columns]);
}

#endif
