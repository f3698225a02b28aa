/* The table of element types, and every mix of them in one projection. */
#include "fixture.h"

static void names_and_sizes_are_known(void) {
    static const char *names[] = {NULL, "XQKV_DTYPE_F32", "XQKV_DTYPE_F16", "XQKV_DTYPE_BF16", "XQKV_DTYPE_INT8"};
    static const int bytes[] = {0, 4, 2, 2, 1}, unknown[] = {0, 5, -1, INT32_MIN, INT32_MAX};
    for (int dtype = XQKV_DTYPE_F32; dtype <= XQKV_DTYPE_INT8; dtype++) {
        CHECK(xqkv_dtype_bytes(dtype) == bytes[dtype]);
        CHECK(strcmp(xqkv_dtype_name(dtype), names[dtype]) == 0);
    }
    for (size_t at = 0; at < sizeof unknown / sizeof *unknown; at++)
        CHECK(xqkv_dtype_bytes(unknown[at]) == 0 && xqkv_dtype_name(unknown[at]) == NULL);
}

/* A projection of layer 0 whose weights and biases came in this dtype. */
static xqkv_projection *projection_of(const xqkv_context *context, int dtype) {
    xqkv_spec spec = test_spec();
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    spec.weight_dtype = dtype;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    for (int part = QUERY; part <= VALUE; part++) {
        CHECK_OK(put_weight_as(update, 0, part, 0, dtype));
        if (part != KEY) CHECK_OK(put_bias_as(update, 0, part, dtype));
    }
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    return projection;
}

static int part_is_right(const outputs *out, int part, int rows, int dtype) {
    int good = 1, columns = test_columns(part);
    for (int at = 0; at < rows * columns; at++)
        good &= holds(out->parts[part], dtype, at, test_result(part, 0, at / columns, at % columns, 0));
    return good && ((const unsigned char *)out->parts[part])[rows * columns * xqkv_dtype_bytes(dtype)] == 0xff;
}

/* Rows of the weights' dtype, results of that or f32. */
static int cuda_takes(int weight, const int *dtypes) {
    int takes = dtypes[0] == weight && dtypes[1] == weight;
    for (int at = 2; at < 5; at++) takes &= dtypes[at] == weight || dtypes[at] == XQKV_DTYPE_F32;
    return takes;
}

/* Integers are exact in each dtype, so that the mix may not show in any bit. */
static void check_mix(const xqkv_projection *projection, int weight, const int *dtypes) {
    enum { ROWS = 5 };
    static outputs out;
    static float decoder[ROWS * DECODER_WIDTH], encoder[ROWS * ENCODER_WIDTH];
    for (int at = 0; at < ROWS * DECODER_WIDTH; at++) store(decoder, dtypes[0], at, test_rows(QUERY)[at]);
    for (int at = 0; at < ROWS * ENCODER_WIDTH; at++) store(encoder, dtypes[1], at, test_rows(KEY)[at]);
    xqkv_forward call = test_call(&out, ROWS, ROWS);
    poison(&out);
    call.decoder.data = decoder, call.decoder.dtype = dtypes[0];
    call.encoder.data = encoder, call.encoder.dtype = dtypes[1];
    call.query.dtype = dtypes[2], call.key.dtype = dtypes[3], call.value.dtype = dtypes[4];
    if (on_cuda() && !cuda_takes(weight, dtypes)) {
        CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "on CUDA", run_forward(projection, &call, NULL, &error));
        CHECK(is_poisoned(&out));
        return;
    }
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int part = QUERY; part <= VALUE; part++) CHECK(part_is_right(&out, part, ROWS, dtypes[2 + part]));
}

/* Both inputs and all three outputs in each dtype of their own: 3^5 calls for each dtype of the weights. */
static void any_mix_gives_the_same_integers(void) {
    xqkv_context *context = test_context(1);
    for (int weight = XQKV_DTYPE_F32; weight <= XQKV_DTYPE_BF16; weight++) {
        xqkv_projection *projection = projection_of(context, weight);
        for (int mix = 0; mix < 243; mix++) {
            int dtypes[] = {1 + mix % 3, 1 + mix / 3 % 3, 1 + mix / 9 % 3, 1 + mix / 27 % 3, 1 + mix / 81};
            check_mix(projection, weight, dtypes);
        }
        CHECK_OK(xqkv_projection_destroy(projection, &error));
    }
    CHECK_OK(xqkv_context_destroy(context, &error));
}

/* 0x3f80 is 1 as bfloat16 and 1.875 as binary16; one buffer as both inputs of a call. */
static void the_same_memory_may_be_rows_of_two_dtypes(void) {
    if (on_cuda()) return;
    const uint16_t row = 0x3f80;
    const float one = 1;
    float query = NAN, key = NAN, value = NAN;
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_forward call;
    xqkv_spec spec;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    spec.layer_count = 1, spec.decoder_width = spec.encoder_width = 1;
    spec.query_heads = spec.key_value_heads = spec.head_width = 1;
    spec.weight_dtype = XQKV_DTYPE_F32;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    const xqkv_tensor weight = test_tensor(&one, 1, 1);
    for (int part = QUERY; part <= VALUE; part++)
        CHECK_OK(xqkv_update_put(update, 0, test_parts[part], XQKV_KIND_WEIGHT, &weight, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    call.layer_count = 1;
    call.decoder.data = call.encoder.data = &row, call.decoder.rows = call.encoder.rows = 1;
    call.decoder.dtype = XQKV_DTYPE_F16, call.encoder.dtype = XQKV_DTYPE_BF16;
    call.query.data = &query, call.key.data = &key, call.value.data = &value;
    call.query.dtype = call.key.dtype = call.value.dtype = XQKV_DTYPE_F32;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(query == 1.875f && key == 1 && value == 1);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

int main(void) {
    names_and_sizes_are_known();
    any_mix_gives_the_same_integers();
    the_same_memory_may_be_rows_of_two_dtypes();
    return check_done();
}
