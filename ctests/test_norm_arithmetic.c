/* The norm of each head of Q and of K, against double precision: head widths of models and odd ones, scales, both ways
   of rounding, every kind of view, and what does not go together. */
#include "fixture.h"

enum { INNER = 48, MOST_WIDTH = 256, MOST_OUTPUTS = 2 * MOST_WIDTH, NORM_ROWS = 6 };

static const float epsilon = 0.0625f;

/* What of a test differs. */
typedef struct {
    int width, dtype, has_bias, rounds_first;
    float scale, weight;
} norm_case;

static float matrix_of(int output, int input) { return (float)((output * 5 + input * 3) % 13 - 6) / 4; }
static float bias_of(int output) { return (float)(output % 7 - 3) / 2; }
static float row_of(int row, int input) { return (float)((row * 11 + input * 7) % 9 - 4) / 2; }
static float norm_weight_of(const norm_case *of, int lane) { return of->weight != 0 ? of->weight : (float)(lane % 5 - 2) / 2; }

/* A quarter of a small integer as an element of f32 or bf16, which both have exactly. */
static void put_number(void *elements, int dtype, int at, float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    if (dtype == XQKV_DTYPE_F32) ((float *)elements)[at] = number;
    if (dtype == XQKV_DTYPE_BF16) ((uint16_t *)elements)[at] = (uint16_t)(bits >> 16);
}

static xqkv_tensor tensor_of(const void *data, int dtype, int rows, int columns) {
    xqkv_tensor tensor = test_tensor(data, rows, columns);
    tensor.dtype = dtype;
    return tensor;
}

static void put_part(xqkv_update *update, const norm_case *of, int part, int has_norm) {
    static float matrix[MOST_OUTPUTS * INNER], bias[MOST_OUTPUTS], weight[MOST_WIDTH];
    int outputs = 2 * of->width;
    for (int at = 0; at < outputs * INNER; at++) put_number(matrix, of->dtype, at, matrix_of(at / INNER, at % INNER));
    for (int at = 0; at < outputs; at++) bias[at] = bias_of(at);
    for (int lane = 0; lane < of->width; lane++) weight[lane] = norm_weight_of(of, lane);
    xqkv_tensor tensor = tensor_of(matrix, of->dtype, outputs, INNER);
    CHECK_OK(xqkv_update_put(update, 0, part, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor = tensor_of(bias, XQKV_DTYPE_F32, outputs, 1);
    if (of->has_bias) CHECK_OK(xqkv_update_put(update, 0, part, XQKV_KIND_BIAS, &tensor, &error));
    tensor = tensor_of(weight, XQKV_DTYPE_F32, of->width, 1);
    if (has_norm) CHECK_OK(xqkv_update_put(update, 0, part, XQKV_KIND_NORM, &tensor, &error));
}

static xqkv_projection *normed_projection(const norm_case *of) {
    xqkv_context *context = test_context(2);
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_spec spec = test_spec();
    spec.layer_count = 1, spec.weight_dtype = of->dtype, spec.decoder_width = spec.encoder_width = INNER;
    spec.query_heads = spec.key_value_heads = 2, spec.head_width = spec.value_head_width = of->width;
    spec.query_bias = spec.key_bias = spec.value_bias = of->has_bias;
    spec.query_scale = spec.key_scale = spec.value_scale = of->scale;
    spec.norm = XQKV_NORM_RMS, spec.norm_epsilon = epsilon, spec.norm_rounds_first = of->rounds_first;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    for (int part = 0; part < 3; part++) put_part(update, of, test_parts[part], part != VALUE);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    return projection;
}

static double sum_of(const norm_case *of, int row, int output) {
    double sum = of->has_bias ? bias_of(output) : 0;
    for (int input = 0; input < INNER; input++) sum += (double)matrix_of(output, input) * row_of(row, input);
    return sum;
}

/* In double; without the rounding in between. */
static double expected(const norm_case *of, int part, int row, int output) {
    double squares = 0, value = sum_of(of, row, output);
    int first = output / of->width * of->width;
    if (part == VALUE) return of->scale * value;
    for (int lane = 0; lane < of->width; lane++) squares += sum_of(of, row, first + lane) * sum_of(of, row, first + lane);
    return of->scale * value / sqrt(squares / of->width + epsilon) * norm_weight_of(of, output % of->width);
}

typedef struct {
    float parts[3][NORM_ROWS * MOST_OUTPUTS];
} norm_outputs;

static xqkv_forward normed_call(norm_outputs *out, const norm_case *of, int rows) {
    static float inputs[NORM_ROWS * INNER];
    xqkv_forward call;
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    for (int at = 0; at < NORM_ROWS * INNER; at++) put_number(inputs, of->dtype, at, row_of(at / INNER, at % INNER));
    memset(out, 0xff, sizeof *out);
    call.decoder.data = call.encoder.data = inputs;
    call.decoder.rows = call.encoder.rows = rows;
    call.decoder.dtype = call.encoder.dtype = of->dtype;
    call.query.data = out->parts[QUERY], call.key.data = out->parts[KEY], call.value.data = out->parts[VALUE];
    call.query.dtype = call.key.dtype = call.value.dtype = XQKV_DTYPE_F32;
    lend_workspace(&call);
    return call;
}

/* f32 sums of exact terms, a sum of squares and a root: some units in the last place. A value that is rounded to bf16 in
   between is half a unit of that off. */
static int is_near(const norm_case *of, int part, double wanted, float got) {
    double between = of->rounds_first && of->dtype == XQKV_DTYPE_BF16 && part != VALUE ? 1.0 / 256 : 0;
    return fabs(got - wanted) <= fabs(wanted) * (between + (of->width + 16) * 0x1p-24) + 1e-6;
}

static void check_case(const norm_case *of) {
    static norm_outputs out;
    xqkv_stats stats;
    xqkv_projection *projection = normed_projection(of);
    xqkv_forward call = normed_call(&out, of, NORM_ROWS);
    int good = 1, between = 1, outputs = 2 * of->width;
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    for (int part = 0; part < 3; part++)
        for (int at = 0; at < NORM_ROWS * outputs; at++) {
            uint32_t bits;
            memcpy(&bits, &out.parts[part][at], sizeof bits);
            good &= is_near(of, part, expected(of, part, at / outputs, at % outputs), out.parts[part][at]);
            between &= part == VALUE || (bits & 0xffff) == 0;
        }
    snprintf(check_detail, sizeof check_detail, "width %d, %s, rounds first %d", of->width, xqkv_dtype_name(of->dtype),
             of->rounds_first);
    check(good, "results", __FILE__, __LINE__);
    /* Times a power of two, what was rounded to bf16 still is one. */
    if (of->weight != 0 && of->scale == 1) CHECK(between == (of->rounds_first && of->dtype == XQKV_DTYPE_BF16));
    CHECK(stats.multiply_adds == (int64_t)3 * NORM_ROWS * outputs * INNER);
    CHECK(outputs == MOST_OUTPUTS || isnan(out.parts[KEY][NORM_ROWS * outputs]));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void each_head_is_normed_after_its_bias_and_before_its_scale(void) {
    const int widths[] = {1, 3, 33, 36, 64, 128, 256};
    for (size_t at = 0; at < sizeof widths / sizeof *widths; at++)
        for (int dtype = XQKV_DTYPE_F32; dtype <= XQKV_DTYPE_BF16; dtype += XQKV_DTYPE_BF16 - XQKV_DTYPE_F32)
            for (int rounds_first = 0; rounds_first < 2; rounds_first++) {
                check_case(&(norm_case){widths[at], dtype, 1, rounds_first, 0.375f, 0});
                check_case(&(norm_case){widths[at], dtype, 0, rounds_first, 1, 2});
            }
}

/* On the host to the bit: batches and layouts make no difference. */
static void views_and_batches_make_no_difference(void) {
    static norm_outputs plain, out;
    static int64_t places[NORM_ROWS] = {3, 0, 5, 1, 2, 4};
    const norm_case of = {36, XQKV_DTYPE_F32, 1, 0, 0.375f, 0};
    xqkv_projection *projection = normed_projection(&of);
    xqkv_forward call = normed_call(&plain, &of, NORM_ROWS);
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    call = normed_call(&out, &of, NORM_ROWS);
    call.query.row_stride = 1, call.query.width_stride = NORM_ROWS, call.query.head_stride = 36 * NORM_ROWS;
    call.key.slots = places, call.key.slot_count = NORM_ROWS;
    call.key.row_stride = 4 * 36, call.key.group_rows = 2, call.key.group_stride = 8 * 36;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int at = 0; at < NORM_ROWS * 72; at++) {
        int row = at / 72, column = at % 72;
        CHECK(out.parts[QUERY][column * NORM_ROWS + row] == plain.parts[QUERY][at]);
        CHECK(out.parts[KEY][places[row] / 2 * 288 + places[row] % 2 * 144 + column] == plain.parts[KEY][at]);
    }
    call = normed_call(&out, &of, 1);
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(on_cuda() || memcmp(out.parts[QUERY], plain.parts[QUERY], 72 * sizeof(float)) == 0);
    call.key.accumulate = 1;
    memset(&out, 0xff, sizeof out);
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "key.accumulate is 1", run_forward(projection, &call, NULL, &error));
    CHECK(isnan(out.parts[QUERY][0]) && isnan(out.parts[KEY][0]));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void heads_that_are_too_wide_are_refused(void) {
    xqkv_spec spec = test_spec();
    spec.norm = XQKV_NORM_RMS, spec.norm_epsilon = epsilon, spec.head_width = 1024;
    CHECK_OK(xqkv_spec_check(&spec, &error));
    spec.head_width = 1025;
    CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "head_width is 1025", xqkv_spec_check(&spec, &error));
}

int main(void) {
    each_head_is_normed_after_its_bias_and_before_its_scale();
    views_and_batches_make_no_difference();
    heads_that_are_too_wide_are_refused();
    return check_done();
}
