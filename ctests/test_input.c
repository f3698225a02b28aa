/* Inputs: what is absent, how rows lie, any dtype, and what is refused. */
#include "fixture.h"

static xqkv_projection *projection;

static void null_and_zero_rows_are_absent_whatever_else_is_set(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 3, 4);
    poison(&out);
    call.encoder.data = NULL, call.encoder.rows = -9, call.encoder.dtype = 77;
    memset(&call.key, 0xff, sizeof call.key);
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(has_rows(&out, QUERY, 0, 3, 0) && isnan(out.parts[KEY][0]) && isnan(out.parts[VALUE][0]));
    call = test_call(&out, 3, 4);
    poison(&out);
    call.decoder.rows = 0, call.decoder.row_stride = -1;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(isnan(out.parts[QUERY][0]) && has_rows(&out, KEY, 0, 4, 0) && has_rows(&out, VALUE, 0, 4, 0));
    call.encoder.rows = 0;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "both absent", run_forward(projection, &call, NULL, &error));
}

static void rows_may_lie_at_a_stride(void) {
    static outputs out;
    static float rows[3 * 11];
    for (int at = 0; at < 3 * 11; at++) rows[at] = at % 11 < DECODER_WIDTH ? test_row(at / 11, at % 11) : NAN;
    xqkv_forward call = test_call(&out, 3, 0);
    poison(&out);
    call.decoder.data = rows, call.decoder.row_stride = 11;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(has_rows(&out, QUERY, 0, 3, 0));
}

static void rows_of_every_dtype_are_widened_exactly(void) {
    static outputs out;
    static uint16_t rows[9 * DECODER_WIDTH];
    for (int dtype = XQKV_DTYPE_F16; dtype <= XQKV_DTYPE_BF16; dtype++) {
        xqkv_forward call = test_call(&out, 9, 0);
        poison(&out);
        for (int at = 0; at < 9 * DECODER_WIDTH; at++) store(rows, dtype, at, test_rows(QUERY)[at]);
        call.decoder.data = rows, call.decoder.dtype = dtype;
        if (on_cuda()) {
            CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "decoder.dtype", run_forward(projection, &call, NULL, &error));
            continue;
        }
        CHECK_OK(run_forward(projection, &call, NULL, &error));
        CHECK(has_rows(&out, QUERY, 0, 9, 0));
    }
}

/* Rows of a larger buffer, one of them twice, between rows of NaN; both sides have lists of their own. */
static void rows_of_a_list_are_projected_alone(void) {
    enum { BUFFER = 9 };
    static outputs out;
    static float buffer[BUFFER * 8];
    static int64_t decoder[] = {4, 1, 4}, encoder[] = {8, 2, 5, 2};
    xqkv_stats stats;
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    xqkv_forward call = test_call(&out, 3, 4);
    poison(&out);
    lend_workspace(&call);
    memset(buffer, 0xff, sizeof buffer);
    for (int at = 0; at < 4; at++)
        memcpy(buffer + encoder[at] * 8, test_rows(KEY) + encoder[at] * 7, 7 * sizeof(float));
    call.encoder.data = buffer, call.encoder.row_stride = 8;
    call.encoder.row_list = encoder, call.encoder.buffer_rows = BUFFER;
    call.decoder.row_list = decoder, call.decoder.buffer_rows = 5;
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    for (int row = 0; row < 4; row++) {
        if (row < 3) CHECK(out.parts[QUERY][row * 12] == test_result(QUERY, 0, (int)decoder[row], 0, 0));
        for (int column = 0; column < 6; column++)
            CHECK(out.parts[KEY][row * 6 + column] == test_result(KEY, 0, (int)encoder[row], column, 0));
        CHECK(out.parts[VALUE][row * 4 + 3] == test_result(VALUE, 0, (int)encoder[row], 3, 0));
    }
    CHECK(isnan(out.parts[KEY][4 * 6]) && isnan(out.parts[QUERY][3 * 12]));
    CHECK(stats.multiply_adds == 3 * 12 * 5 + 4 * 10 * 7);
}

/* The host sees the list; on CUDA results of such a row are NaN. */
static void a_row_that_is_not_there_is_refused(void) {
    static outputs out;
    static int64_t low[] = {0, -1}, high[] = {3, 0};
    for (int at = 0; at < 2; at++) {
        xqkv_forward call = test_call(&out, 2, 1);
        poison(&out);
        lend_workspace(&call);
        call.decoder.row_list = at == 0 ? low : high, call.decoder.buffer_rows = 3;
        if (on_cuda()) {
            CHECK_OK(run_forward(projection, &call, NULL, &error));
            CHECK(isnan(out.parts[QUERY][at == 0 ? 12 : 0]) && out.parts[QUERY][at == 0 ? 0 : 12] == test_result(QUERY, 0, 0, 0, 0));
            continue;
        }
        CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, at == 0 ? "decoder.row_list[1] is -1" : "decoder.row_list[0] is 3",
                      run_forward(projection, &call, NULL, &error));
        CHECK(is_poisoned(&out));
    }
}

static void bad_inputs_are_refused(void) {
    static const int64_t list[] = {0, 1, 2};
    const char *odd = (const char *)test_rows(QUERY) + 2;
    CALL_REFUSED(projection, decoder.rows, -3, XQKV_STATUS_INVALID_ARGUMENT, "decoder.rows is -3");
    CALL_REFUSED(projection, encoder.rows, INT64_MIN, XQKV_STATUS_INVALID_ARGUMENT, "encoder.rows");
    CALL_REFUSED(projection, decoder.rows, INT64_MAX, XQKV_STATUS_SIZE_OVERFLOW, "decoder");
    CALL_REFUSED(projection, encoder.rows, (INT64_C(1) << 62) / 7, XQKV_STATUS_SIZE_OVERFLOW, "encoder");
    CALL_REFUSED(projection, decoder.dtype, 0, XQKV_STATUS_INVALID_ENUM, "decoder.dtype is 0");
    CALL_REFUSED(projection, encoder.dtype, 4, XQKV_STATUS_INVALID_ENUM, "encoder.dtype is 4");
    CALL_REFUSED(projection, decoder.row_stride, 4, XQKV_STATUS_INVALID_STRIDE, "decoder.row_stride is 4");
    CALL_REFUSED(projection, encoder.row_stride, -7, XQKV_STATUS_INVALID_STRIDE, "encoder.row_stride is -7");
    CALL_REFUSED(projection, encoder.row_stride, INT64_MAX / 2, XQKV_STATUS_SIZE_OVERFLOW, "encoder");
    CALL_REFUSED(projection, decoder.data, odd, XQKV_STATUS_MISALIGNED, "decoder.data");
    CALL_REFUSED(projection, decoder.row_list, list, XQKV_STATUS_INVALID_ARGUMENT, "decoder.buffer_rows is 0");
    CALL_REFUSED(projection, encoder.buffer_rows, 8, XQKV_STATUS_INVALID_ARGUMENT, "encoder.buffer_rows");
    CALL_REFUSED(projection, encoder.reserved, 1, XQKV_STATUS_INVALID_ARGUMENT, "encoder.reserved");
}

static void a_side_without_heads_may_not_be_given(void) {
    static outputs out;
    xqkv_context *context = test_context(1);
    xqkv_spec spec = test_spec();
    xqkv_projection *query_only = NULL, *key_value_only = NULL;
    xqkv_forward call = test_call(&out, 1, 0);
    spec.key_value_heads = 0;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &query_only, &error));
    spec = test_spec(), spec.query_heads = 0;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &key_value_only, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "no query heads", run_forward(key_value_only, &call, NULL, &error));
    call = test_call(&out, 0, 1);
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "no key/value heads", run_forward(query_only, &call, NULL, &error));
    CHECK_OK(xqkv_projection_destroy(query_only, &error));
    CHECK_OK(xqkv_projection_destroy(key_value_only, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

int main(void) {
    projection = ready_projection(1);
    null_and_zero_rows_are_absent_whatever_else_is_set();
    rows_may_lie_at_a_stride();
    rows_of_every_dtype_are_widened_exactly();
    rows_of_a_list_are_projected_alone();
    a_row_that_is_not_there_is_refused();
    bad_inputs_are_refused();
    a_side_without_heads_may_not_be_given();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return check_done();
}
