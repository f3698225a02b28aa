/* Tensors: fused and single, whole and cut, strided, of any dtype and alignment; and those that are refused. */
#include "fixture.h"

static xqkv_projection *projection;

/* Runs prefill of layer 0 and checks all three parts. */
static void check_layer(const xqkv_projection *checked) {
    static outputs out;
    xqkv_forward call = test_call(&out, 3, 4);
    poison(&out);
    CHECK_OK(run_forward(checked, &call, NULL, &error));
    for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 0, part == QUERY ? 3 : 4, 0));
}

static xqkv_update *begin(void) {
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    return update;
}

/* [Wk; Wv] with rows 9 elements apart, beginning one byte off any alignment. */
static void a_fused_strided_unaligned_weight_is_cut_right(void) {
    enum { STRIDE = 9, ROWS = 10 };
    static char bytes[ROWS * STRIDE * sizeof(float) + 1];
    xqkv_update *update = begin();
    for (int row = 0; row < ROWS; row++)
        for (int input = 0; input < ENCODER_WIDTH; input++) {
            float weight = row < 6 ? test_weight(KEY, 0, row, input, 0) : test_weight(VALUE, 0, row - 6, input, 0);
            memcpy(bytes + 1 + (row * STRIDE + input) * sizeof(float), &weight, sizeof weight);
        }
    xqkv_tensor tensor = test_tensor(bytes + 1, ROWS, ENCODER_WIDTH);
    tensor.row_stride = STRIDE;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_KEY_VALUE, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(put_weight(update, 0, QUERY, 0));
    CHECK_OK(put_bias(update, 0, QUERY));
    CHECK_OK(put_bias(update, 0, VALUE));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    check_layer(projection);
}

static void other_dtypes_are_taken_when_asked(void) {
    uint16_t weight[12 * DECODER_WIDTH];
    for (int at = 0; at < 12 * DECODER_WIDTH; at++)
        store(weight, XQKV_DTYPE_BF16, at, test_weight(QUERY, 0, at / DECODER_WIDTH, at % DECODER_WIDTH, 0));
    xqkv_update *update = begin();
    xqkv_tensor tensor = test_tensor(weight, 12, DECODER_WIDTH);
    tensor.dtype = XQKV_DTYPE_BF16;
    CHECK_REFUSED(XQKV_STATUS_INVALID_DTYPE, "XQKV_DTYPE_BF16",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor.convert = 1;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    check_layer(projection);
}

/* The second of two ranks gets its own rows only. */
static void a_cut_tensor_is_taken_as_it_is(const xqkv_context *context) {
    static outputs out;
    float weight[6 * DECODER_WIDTH], bias[6];
    xqkv_projection_options options;
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.rank = 1, options.rank_count = 2;
    xqkv_projection *second = test_projection(context, &options);
    for (int at = 0; at < 6 * DECODER_WIDTH; at++)
        weight[at] = test_weight(QUERY, 0, 6 + at / DECODER_WIDTH, at % DECODER_WIDTH, 0);
    for (int at = 0; at < 6; at++) bias[at] = test_bias(QUERY, 6 + at);
    xqkv_tensor tensor = test_tensor(weight, 6, DECODER_WIDTH);
    CHECK_OK(xqkv_update_begin(second, &update, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_SHAPE, "needs [12, 5]",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor.extent = XQKV_EXTENT_SHARD;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor = test_tensor(bias, 6, 0);
    tensor.extent = XQKV_EXTENT_SHARD;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_BIAS, &tensor, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    xqkv_forward call = test_call(&out, 2, 0);
    poison(&out);
    CHECK_OK(run_forward(second, &call, NULL, &error));
    for (int at = 0; at < 12; at++) CHECK(out.parts[QUERY][at] == test_result(QUERY, 0, at / 6, 6 + at % 6, 0));
    CHECK_OK(xqkv_projection_destroy(second, &error));
}

#define REFUSED(field, value, status, word)                                                                         \
    do {                                                                                                            \
        float weight[12 * DECODER_WIDTH] = {0};                                                                     \
        xqkv_tensor tensor = test_tensor(weight, 12, DECODER_WIDTH);                                                \
        xqkv_update *update = begin();                                                                              \
        tensor.field = (value);                                                                                     \
        CHECK_REFUSED((status), (word),                                                                             \
                      xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));              \
        tensor = test_tensor(weight, 12, DECODER_WIDTH);                                                            \
        CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));                   \
        CHECK_OK(xqkv_update_abandon(update, &error));                                                              \
    } while (0)

static void bad_tensors_are_refused_and_the_update_goes_on(void) {
    int something = 0;
    REFUSED(data, NULL, XQKV_STATUS_NULL_ARGUMENT, "tensor.data");
    REFUSED(dtype, 0, XQKV_STATUS_INVALID_ENUM, "dtype is 0");
    REFUSED(dtype, INT32_MIN, XQKV_STATUS_INVALID_ENUM, "dtype is -2147483648");
    REFUSED(rows, 11, XQKV_STATUS_INVALID_SHAPE, "[11, 5]");
    REFUSED(rows, -12, XQKV_STATUS_INVALID_SHAPE, "-12");
    REFUSED(rows, (INT64_C(1) << 31) + 12, XQKV_STATUS_INVALID_SHAPE, "[2147483660, 5]");
    REFUSED(columns, INT64_C(1) << 59, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED(rows, INT64_MAX, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED(columns, 4, XQKV_STATUS_INVALID_SHAPE, "needs [12, 5]");
    REFUSED(columns, -5, XQKV_STATUS_INVALID_SHAPE, "-5");
    REFUSED(row_stride, 4, XQKV_STATUS_INVALID_STRIDE, "row_stride");
    REFUSED(row_stride, INT64_MIN, XQKV_STATUS_INVALID_STRIDE, "row_stride");
    REFUSED(row_stride, INT64_MAX, XQKV_STATUS_SIZE_OVERFLOW, "row_stride");
    REFUSED(extent, 2, XQKV_STATUS_INVALID_ENUM, "extent");
    REFUSED(convert, 2, XQKV_STATUS_INVALID_ARGUMENT, "convert");
    REFUSED(layout, 2, XQKV_STATUS_INVALID_ENUM, "layout");
    REFUSED(fused_order, -1, XQKV_STATUS_INVALID_ENUM, "fused_order");
    if (on_cuda()) REFUSED(memory, XQKV_MEMORY_DEVICE, XQKV_STATUS_WRONG_MEMORY, "no memory that CUDA");
    else REFUSED(memory, XQKV_MEMORY_DEVICE, XQKV_STATUS_NOT_SUPPORTED, "XQKV_MEMORY_HOST");
    REFUSED(memory, 5, XQKV_STATUS_INVALID_ENUM, "memory");
    REFUSED(ownership, XQKV_OWNERSHIP_BORROW, XQKV_STATUS_NOT_SUPPORTED, "XQKV_OWNERSHIP_COPY");
    REFUSED(ownership, 5, XQKV_STATUS_INVALID_ENUM, "ownership");
    REFUSED(scale, &something, XQKV_STATUS_INVALID_ARGUMENT, "scale");
    REFUSED(scale_dtype, XQKV_DTYPE_F32, XQKV_STATUS_INVALID_ARGUMENT, "scale");
    REFUSED(scale_block_rows, 32, XQKV_STATUS_INVALID_ARGUMENT, "scale");
    REFUSED(scale_block_columns, 32, XQKV_STATUS_INVALID_ARGUMENT, "scale");
    REFUSED(dtype, XQKV_DTYPE_INT8, XQKV_STATUS_INVALID_ARGUMENT, "scale_block_rows");
    REFUSED(reserved, 1, XQKV_STATUS_INVALID_ARGUMENT, "reserved");
    check_layer(projection);
}

static void sizes_are_refused_and_the_update_goes_on(void) {
    float weight[12 * DECODER_WIDTH] = {0};
    xqkv_update *update = begin();
    xqkv_tensor tensor = test_tensor(weight, 12, DECODER_WIDTH);
    CHECK_SIZES(xqkv_tensor, tensor, xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(put_weight(update, 0, QUERY, 0));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    check_layer(projection);
}

/* A bias is one column of a matrix, every third element of it; and [Wq; Wk; Wv] come at once where widths are equal. */
static void a_strided_bias_and_three_fused_weights_are_cut_right(const xqkv_context *context) {
    enum { STRIDE = 3, OUTPUTS = 12 + 6 + 4 };
    static outputs out;
    float weight[OUTPUTS * ENCODER_WIDTH], bias[OUTPUTS * STRIDE];
    xqkv_spec spec = test_spec();
    xqkv_projection *equal = NULL;
    xqkv_update *update = NULL;
    spec.decoder_width = ENCODER_WIDTH, spec.layer_count = 1, spec.key_bias = 1;
    for (int at = 0; at < OUTPUTS * ENCODER_WIDTH; at++) weight[at] = (float)(at % 13 - 6);
    for (int at = 0; at < OUTPUTS * STRIDE; at++) bias[at] = at % STRIDE == 0 ? (float)(at / STRIDE - 11) : NAN;
    xqkv_tensor weights = test_tensor(weight, OUTPUTS, ENCODER_WIDTH), biases = test_tensor(bias, OUTPUTS, 1);
    biases.row_stride = STRIDE;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &equal, &error));
    CHECK_OK(xqkv_update_begin(equal, &update, &error));
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY_KEY_VALUE, XQKV_KIND_WEIGHT, &weights, &error));
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY_KEY_VALUE, XQKV_KIND_BIAS, &biases, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    xqkv_forward call = test_call(&out, 3, 3);
    poison(&out);
    call.decoder.data = test_rows(KEY);
    CHECK_OK(run_forward(equal, &call, NULL, &error));
    for (int part = QUERY, first = 0; part <= VALUE; first += test_columns(part++))
        for (int at = 0; at < 3 * test_columns(part); at++) {
            int output = first + at % test_columns(part);
            double sum = output - 11;
            for (int input = 0; input < ENCODER_WIDTH; input++)
                sum += ((output * ENCODER_WIDTH + input) % 13 - 6) * (double)test_row(at / test_columns(part), input);
            CHECK((double)out.parts[part][at] == sum);
        }
    CHECK_OK(xqkv_projection_destroy(equal, &error));
}

/* A rank without heads of a part takes its empty shard, which lies nowhere. */
static void an_empty_shard_needs_no_data(const xqkv_context *context) {
    xqkv_projection_options options;
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.split = XQKV_SPLIT_EXPLICIT, options.key_value_head_count = KEY_VALUE_HEADS;
    xqkv_projection *empty = test_projection(context, &options);
    xqkv_tensor tensor = test_tensor(NULL, 0, DECODER_WIDTH);
    tensor.extent = XQKV_EXTENT_SHARD;
    CHECK_OK(xqkv_update_begin(empty, &update, &error));
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK_OK(xqkv_projection_destroy(empty, &error));
}

/* Integers with a scale for each two outputs. A row whose largest magnitude is 127 is its own integers. */
static const int8_t integers[12][DECODER_WIDTH] = {{1, -2, 3, -128, 127}, {[11 % DECODER_WIDTH] = 7}, {-1, -1, 5}};
static const float scales[6] = {0.5f, 2, 1, 4, 0.25f, 8};
static const float integer_rows[2][DECODER_WIDTH] = {{127, -3, 5, 100, -127}, {0, 1, -127, 64, 2}};

static xqkv_tensor integer_tensor(void) {
    xqkv_tensor tensor = test_tensor(integers, 12, DECODER_WIDTH);
    tensor.dtype = XQKV_DTYPE_INT8, tensor.scale = scales, tensor.scale_dtype = XQKV_DTYPE_F32;
    tensor.scale_block_rows = 2, tensor.scale_block_columns = DECODER_WIDTH;
    return tensor;
}

#define REFUSED_INTEGERS(changes, status, word)                                                                      \
    do {                                                                                                            \
        xqkv_tensor tensor = integer_tensor();                                                                      \
        changes;                                                                                                    \
        CHECK_REFUSED((status), (word),                                                                             \
                      xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));              \
    } while (0)

static void bad_integers_are_refused(xqkv_update *update) {
    float weight[12 * DECODER_WIDTH] = {NAN};
    xqkv_tensor bias = integer_tensor();
    REFUSED_INTEGERS(tensor.scale = NULL, XQKV_STATUS_NULL_ARGUMENT, "tensor.scale");
    REFUSED_INTEGERS(tensor.scale_dtype = 0, XQKV_STATUS_INVALID_ENUM, "scale_dtype");
    REFUSED_INTEGERS(tensor.scale_dtype = XQKV_DTYPE_INT8, XQKV_STATUS_INVALID_ENUM, "scale_dtype");
    REFUSED_INTEGERS(tensor.scale_block_rows = 0, XQKV_STATUS_INVALID_ARGUMENT, "scale_block_rows is 0");
    REFUSED_INTEGERS(tensor.scale_block_columns = -1, XQKV_STATUS_INVALID_ARGUMENT, "scale_block_columns -1");
    REFUSED_INTEGERS(tensor.rows = INT64_MAX, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED_INTEGERS((tensor.rows = INT64_MAX / 2, tensor.columns = 1, tensor.scale_block_rows = 1),
                     XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED_INTEGERS(tensor.scale_block_columns = 2, XQKV_STATUS_NOT_SUPPORTED, "whole rows");
    REFUSED_INTEGERS(tensor = test_tensor(weight, 12, DECODER_WIDTH), XQKV_STATUS_INVALID_DTYPE, "convert");
    REFUSED_INTEGERS((tensor = test_tensor(weight, 12, DECODER_WIDTH), tensor.convert = 1), XQKV_STATUS_INVALID_ARGUMENT,
                     "not a number");
    bias.columns = 1;
    CHECK_REFUSED(XQKV_STATUS_INVALID_DTYPE, "bias is XQKV_DTYPE_INT8",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_BIAS, &bias, &error));
}

static void integers_are_multiplied_exactly(const xqkv_projection *checked) {
    static outputs out;
    xqkv_forward call = test_call(&out, 2, 0);
    poison(&out);
    call.decoder.data = integer_rows;
    CHECK_OK(run_forward(checked, &call, NULL, &error));
    for (int row = 0; row < 2; row++)
        for (int output = 0; output < 12; output++) {
            float sum = 0;
            for (int input = 0; input < DECODER_WIDTH; input++) sum += integers[output][input] * integer_rows[row][input];
            CHECK(out.parts[QUERY][row * 12 + output] == sum * scales[output / 2] + test_bias(QUERY, output));
        }
    call = test_call(&out, 2, 0);
    call.decoder.dtype = XQKV_DTYPE_INT8;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ENUM, "decoder.dtype", run_forward(checked, &call, NULL, &error));
}

static void weights_of_integers_have_scales(const xqkv_context *context) {
    xqkv_spec spec = test_spec();
    xqkv_projection *made = NULL;
    xqkv_update *update = NULL;
    spec.weight_dtype = XQKV_DTYPE_INT8, spec.layer_count = 1;
    if (on_cuda()) {
        CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "only the host",
                      xqkv_projection_create(context, &spec, NULL, &made, &error));
        return;
    }
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &made, &error));
    CHECK_OK(xqkv_update_begin(made, &update, &error));
    bad_integers_are_refused(update);
    xqkv_tensor tensor = integer_tensor();
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(put_bias(update, 0, QUERY));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    integers_are_multiplied_exactly(made);
    CHECK_OK(xqkv_projection_destroy(made, &error));
}

int main(void) {
    xqkv_context *context = test_context(1);
    projection = test_projection(context, NULL);
    a_fused_strided_unaligned_weight_is_cut_right();
    other_dtypes_are_taken_when_asked();
    a_cut_tensor_is_taken_as_it_is(context);
    bad_tensors_are_refused_and_the_update_goes_on();
    sizes_are_refused_and_the_update_goes_on();
    a_strided_bias_and_three_fused_weights_are_cut_right(context);
    an_empty_shard_needs_no_data(context);
    weights_of_integers_have_scales(context);
    CHECK(xqkv_tensor_init(NULL, sizeof(xqkv_tensor)) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    return check_done();
}
