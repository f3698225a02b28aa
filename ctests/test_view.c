/* Views: every layout lands where it should, nothing between is touched, and what would collide is refused. */
#include "fixture.h"

static xqkv_projection *projection;

enum { ROWS = 5 };

/* Runs a cache fill of both layers with the strides of `key`, and checks each element and all that lies between. */
static void check_key_layout(const char *name, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    static outputs out;
    static unsigned char written[sizeof out.parts[KEY] / sizeof(float)];
    xqkv_forward call = test_call(&out, 0, ROWS);
    int good = 1;
    poison(&out);
    memset(written, 0, sizeof written);
    call.layer_count = LAYERS;
    call.key.layer_stride = layer, call.key.row_stride = row, call.key.head_stride = head, call.key.width_stride = lane;
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    for (int l = 0; l < LAYERS; l++)
        for (int r = 0; r < ROWS; r++)
            for (int column = 0; column < test_columns(KEY); column++) {
                int64_t at = l * layer + r * row + column / HEAD_WIDTH * head + column % HEAD_WIDTH * lane;
                good &= out.parts[KEY][at] == test_result(KEY, l, r, column, 0);
                written[at] = 1;
            }
    for (size_t at = 0; at < sizeof written; at++) good &= written[at] || isnan(out.parts[KEY][at]);
    check(good, name, __FILE__, __LINE__);
}

static void every_layout_lands_where_it_should(void) {
    check_key_layout("packed", ROWS * 6, 6, 3, 1);
    check_key_layout("columns of a wider buffer", ROWS * 20, 20, 3, 1);
    check_key_layout("padded heads", ROWS * 16, 16, 8, 1);
    check_key_layout("head-major", ROWS * 6, 3, ROWS * 3, 1);
    check_key_layout("transposed", ROWS * 6, 1, ROWS * 3, ROWS);
    check_key_layout("layers innermost but lanes", 6, 12, 3, 1);
    check_key_layout("every second lane", ROWS * 12, 12, 6, 2);
}

static void key_and_value_may_be_interleaved(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 0, ROWS);
    poison(&out);
    call.value.data = out.parts[KEY] + 6;
    call.key.row_stride = call.value.row_stride = 10;
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    for (int at = 0; at < ROWS * 10; at++) {
        int part = at % 10 < 6 ? KEY : VALUE, column = at % 10 < 6 ? at % 10 : at % 10 - 6;
        CHECK(out.parts[KEY][at] == test_result(part, 0, at / 10, column, 0));
    }
}

static void sixteen_bit_outputs_are_written(void) {
    static outputs out;
    for (int dtype = XQKV_DTYPE_F16; dtype <= XQKV_DTYPE_BF16; dtype++) {
        xqkv_forward call = test_call(&out, ROWS, 0);
        poison(&out);
        call.query.dtype = dtype;
        CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
        const uint16_t *elements = (const uint16_t *)(const void *)out.parts[QUERY];
        for (int at = 0; at < ROWS * 12; at++) {
            float expected = test_result(QUERY, 0, at / 12, at % 12, 0);
            uint32_t bits;
            memcpy(&bits, &expected, sizeof bits);
            /* Integers below 256 are exact in both; f16 has a smaller exponent and a longer fraction. */
            uint16_t bfloat = (uint16_t)(bits >> 16);
            uint32_t sign = bits >> 16 & 0x8000, magnitude = (bits & INT32_MAX) >> 13;
            uint16_t half = expected == 0 ? 0 : (uint16_t)(sign | (magnitude - (112 << 10)));
            CHECK(elements[at] == (dtype == XQKV_DTYPE_F16 ? half : bfloat));
        }
        CHECK(elements[ROWS * 12] == 0xffff);
    }
}

static void bad_views_are_refused(void) {
    static char odd[64];
    static int64_t slots[4];
    static float scale = 1;
    static void *bases[2];
    CALL_REFUSED(projection, query.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "query.data is NULL");
    CALL_REFUSED(projection, value.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "value.data is NULL");
    CALL_REFUSED(projection, key.dtype, 0, XQKV_STATUS_INVALID_ENUM, "key.dtype is 0");
    CALL_REFUSED(projection, key.data, odd + 1 + ((uintptr_t)odd & 1), XQKV_STATUS_MISALIGNED, "key.data");
    CALL_REFUSED(projection, query.row_stride, 11, XQKV_STATUS_INVALID_STRIDE, "query.row_stride is 11, less than the 12");
    CALL_REFUSED(projection, query.row_stride, -12, XQKV_STATUS_INVALID_STRIDE, "query.row_stride is -12");
    CALL_REFUSED(projection, key.head_stride, 2, XQKV_STATUS_INVALID_STRIDE, "key.head_stride is 2");
    CALL_REFUSED(projection, value.width_stride, 2, XQKV_STATUS_INVALID_STRIDE, "value.");
    CALL_REFUSED(projection, value.width_stride, INT64_MIN, XQKV_STATUS_INVALID_STRIDE, "value.width_stride");
    CALL_REFUSED(projection, key.row_stride, INT64_MAX / 2, XQKV_STATUS_SIZE_OVERFLOW, "key");
    CALL_REFUSED(projection, key.layer_data, bases, XQKV_STATUS_NOT_SUPPORTED, "key.layer_data");
    CALL_REFUSED(projection, key.group_rows, 2, XQKV_STATUS_NOT_SUPPORTED, "key.group_rows");
    CALL_REFUSED(projection, key.group_stride, 64, XQKV_STATUS_NOT_SUPPORTED, "key.group_stride");
    CALL_REFUSED(projection, value.slots, slots, XQKV_STATUS_NOT_SUPPORTED, "value.slots");
    CALL_REFUSED(projection, value.slot_count, 4, XQKV_STATUS_NOT_SUPPORTED, "value.slot_count");
    CALL_REFUSED(projection, query.quantization_scale, &scale, XQKV_STATUS_NOT_SUPPORTED, "query.quantization_scale");
    CALL_REFUSED(projection, query.accumulate, 1, XQKV_STATUS_NOT_SUPPORTED, "query.accumulate");
}

static void outputs_that_share_memory_are_refused(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 3, 4);
    poison(&out);
    call.value.data = call.key.data;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "key", xqkv_projection_forward(projection, &call, NULL, &error));
    call.value.data = out.parts[KEY] + 4 * 6 - 1;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "value", xqkv_projection_forward(projection, &call, NULL, &error));
    call.value.data = out.parts[QUERY] + 3;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "query", xqkv_projection_forward(projection, &call, NULL, &error));
    call = test_call(&out, 3, 4);
    call.key.row_stride = call.value.row_stride = 10, call.value.data = out.parts[KEY] + 5;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "key", xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(is_poisoned(&out));
    call = test_call(&out, 3, 4);
    memcpy(out.parts[QUERY], test_rows(QUERY), sizeof(float) * 3 * DECODER_WIDTH);
    call.decoder.data = out.parts[QUERY];
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "decoder", xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(memcmp(out.parts[QUERY], test_rows(QUERY), sizeof(float) * 3 * DECODER_WIDTH) == 0);
}

int main(void) {
    projection = ready_projection(2);
    every_layout_lands_where_it_should();
    key_and_value_may_be_interleaved();
    sixteen_bit_outputs_are_written();
    bad_views_are_refused();
    outputs_that_share_memory_are_refused();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return check_done();
}
