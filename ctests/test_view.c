/* Views: every layout lands where it should, nothing between is touched, and what would collide is refused. */
#include "fixture.h"
#include <sys/mman.h>

static xqkv_projection *projection;

enum { ROWS = 5 };

static xqkv_view *view_of(xqkv_forward *call, int part) {
    return part == QUERY ? &call->query : part == KEY ? &call->key : &call->value;
}

/* Runs a call with such a view of one part, and checks each element and all that lies between: Q of layer 0, K and V of
   all layers. */
static void check_layout(int part, int dtype, const char *name, int64_t layer, int64_t row, int64_t head,
                         int64_t lane) {
    static outputs out;
    static unsigned char written[sizeof out.parts[0] / 2];
    int good = 1, layers = part == QUERY ? 1 : LAYERS;
    int64_t bytes = xqkv_dtype_bytes(dtype);
    xqkv_forward call = test_call(&out, part == QUERY ? ROWS : 0, part == QUERY ? 0 : ROWS);
    xqkv_view *view = view_of(&call, part);
    poison(&out);
    memset(written, 0, sizeof written);
    call.layer_count = layers, view->dtype = dtype;
    view->layer_stride = layer, view->row_stride = row, view->head_stride = head, view->width_stride = lane;
    if (on_cuda() && lane != 1) {
        CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "width_stride", run_forward(projection, &call, NULL, &error));
        CHECK(is_poisoned(&out));
        return;
    }
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int l = 0; l < layers; l++)
        for (int r = 0; r < ROWS; r++)
            for (int column = 0; column < test_columns(part); column++) {
                int h = column / test_widths[part], d = column % test_widths[part];
                int64_t at = l * layer + r * row + h * head + d * lane;
                good &= holds(out.parts[part], dtype, at, test_result(part, l, r, column, 0));
                written[at] = 1;
            }
    const unsigned char *touched = (const unsigned char *)out.parts[part];
    for (int64_t at = 0; at < (int64_t)sizeof out.parts[0]; at++) good &= written[at / bytes] || touched[at] == 0xff;
    snprintf(check_detail, sizeof check_detail, "of part %d in %s", part, xqkv_dtype_name(dtype));
    check(good, name, __FILE__, __LINE__);
}

static void layouts_land_where_they_should(int part, int dtype) {
    int64_t columns = test_columns(part), width = test_widths[part];
    check_layout(part, dtype, "packed", ROWS * columns, columns, width, 1);
    check_layout(part, dtype, "columns of a wider buffer", ROWS * 20, 20, width, 1);
    check_layout(part, dtype, "padded heads", ROWS * 32, 32, 8, 1);
    check_layout(part, dtype, "head-major", ROWS * columns, width, ROWS * width, 1);
    check_layout(part, dtype, "transposed", ROWS * columns, 1, ROWS * width, ROWS);
    check_layout(part, dtype, "transposed rows", ROWS * columns, 1, ROWS, ROWS * test_heads[part]);
    check_layout(part, dtype, "layers inside rows", columns, LAYERS * columns, width, 1);
    check_layout(part, dtype, "layers innermost", 1, LAYERS * columns, LAYERS * width, LAYERS);
    check_layout(part, dtype, "every second lane", 2 * ROWS * columns, 2 * columns, 2 * width, 2);
}

static void key_and_value_may_be_interleaved(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 0, ROWS);
    poison(&out);
    call.value.data = out.parts[KEY] + 6;
    call.key.row_stride = call.value.row_stride = 10;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int at = 0; at < ROWS * 10; at++) {
        int part = at % 10 < 6 ? KEY : VALUE, column = at % 10 < 6 ? at % 10 : at % 10 - 6;
        CHECK(out.parts[KEY][at] == test_result(part, 0, at / 10, column, 0));
    }
}

/* Each head's K in f32 and its V in bf16 share 20 bytes, of which the 2 lanes of V leave the last 4; all layers. */
static void heads_of_key_and_value_may_alternate_in_dtypes_of_their_own(void) {
    enum { HEAD = 5, ROW = KEY_VALUE_HEADS * HEAD, LAYER = ROWS * ROW };
    static outputs out;
    xqkv_forward call = test_call(&out, 0, ROWS);
    poison(&out);
    call.layer_count = LAYERS;
    call.key.head_stride = HEAD, call.key.row_stride = ROW, call.key.layer_stride = LAYER;
    call.value.data = out.parts[KEY] + HEAD_WIDTH, call.value.dtype = XQKV_DTYPE_BF16;
    call.value.head_stride = 2 * HEAD, call.value.row_stride = 2 * ROW, call.value.layer_stride = 2 * LAYER;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int at = 0; at < LAYERS * LAYER; at++) {
        int layer = at / LAYER, row = at / ROW % ROWS, head = at / HEAD % KEY_VALUE_HEADS, lane = at % HEAD;
        const float *element = out.parts[KEY] + at;
        if (lane < HEAD_WIDTH) CHECK(*element == test_result(KEY, layer, row, head * HEAD_WIDTH + lane, 0));
        for (int v = 0; lane == HEAD_WIDTH && v < VALUE_WIDTH; v++)
            CHECK(holds(element, XQKV_DTYPE_BF16, v, test_result(VALUE, layer, row, head * VALUE_WIDTH + v, 0)));
        if (lane > HEAD_WIDTH) CHECK(isnan(*element));
    }
    CHECK(isnan(out.parts[KEY][LAYERS * LAYER]));
}

/* Elements 2^31 apart, in memory that is promised and never taken. */
static void strides_of_more_than_32_bits_land_where_they_should(void) {
    static outputs out;
    const int64_t stride = (INT64_C(1) << 31) + 3;
    const size_t bytes = ((size_t)stride + 16) * sizeof(uint16_t);
    uint16_t *far[2];
    for (int at = 0; at < 2; at++) {
        far[at] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (!CHECK(far[at] != MAP_FAILED)) return;
    }
    for (int at = 0; at < 2 * DECODER_WIDTH; at++)
        store(far[0], XQKV_DTYPE_BF16, at / DECODER_WIDTH * stride + at % DECODER_WIDTH, test_rows(QUERY)[at]);
    xqkv_forward call = test_call(&out, 2, 0);
    call.decoder.data = far[0], call.query.data = far[1];
    call.decoder.row_stride = call.query.row_stride = stride;
    call.decoder.dtype = call.query.dtype = XQKV_DTYPE_BF16;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int at = 0; at < 2 * 12; at++)
        CHECK(holds(far[1], XQKV_DTYPE_BF16, at / 12 * stride + at % 12, test_result(QUERY, 0, at / 12, at % 12, 0)));
    CHECK(far[1][12] == 0 && far[1][stride - 1] == 0 && far[1][stride + 12] == 0);
    for (int at = 0; at < 2; at++) munmap(far[at], bytes);
}

static void bad_views_are_refused(void) {
    static char odd[64];
    static int64_t slots[4];
    static float scale = 1;
    static void *bases[2];
    CALL_REFUSED(projection, query.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "query.data is NULL");
    CALL_REFUSED(projection, value.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "value.data is NULL");
    CALL_REFUSED(projection, key.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "key.data is NULL");
    CALL_REFUSED(projection, key.dtype, 0, XQKV_STATUS_INVALID_ENUM, "key.dtype is 0");
    CALL_REFUSED(projection, query.dtype, INT32_MAX, XQKV_STATUS_INVALID_ENUM, "query.dtype is 2147483647");
    CALL_REFUSED(projection, value.dtype, INT32_MIN, XQKV_STATUS_INVALID_ENUM, "value.dtype is -2147483648");
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
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "key", run_forward(projection, &call, NULL, &error));
    call.value.data = out.parts[KEY] + 4 * 6 - 1;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "value", run_forward(projection, &call, NULL, &error));
    call.value.data = out.parts[QUERY] + 3;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "query", run_forward(projection, &call, NULL, &error));
    call = test_call(&out, 3, 4);
    call.key.row_stride = call.value.row_stride = 10, call.value.data = out.parts[KEY] + 5;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "key", run_forward(projection, &call, NULL, &error));
    CHECK(is_poisoned(&out));
    call = test_call(&out, 3, 4);
    memcpy(out.parts[QUERY], test_rows(QUERY), sizeof(float) * 3 * DECODER_WIDTH);
    call.decoder.data = out.parts[QUERY];
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "decoder", run_forward(projection, &call, NULL, &error));
    CHECK(memcmp(out.parts[QUERY], test_rows(QUERY), sizeof(float) * 3 * DECODER_WIDTH) == 0);
    call = test_call(&out, 3, 4);
    call.encoder.data = out.parts[VALUE] + 4 * 4 - 1;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "encoder", run_forward(projection, &call, NULL, &error));
    memcpy(out.parts[VALUE] + 4 * 4, test_rows(KEY), sizeof(float) * 4 * ENCODER_WIDTH);
    call.encoder.data = out.parts[VALUE] + 4 * 4;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
}

int main(void) {
    projection = ready_projection(2);
    /* On CUDA results are of the weights' dtype, here f32, and lanes are neighbours. */
    for (int dtype = XQKV_DTYPE_F32; dtype <= (on_cuda() ? XQKV_DTYPE_F32 : XQKV_DTYPE_BF16); dtype++)
        for (int part = QUERY; part <= VALUE; part++) layouts_land_where_they_should(part, dtype);
    key_and_value_may_be_interleaved();
    if (!on_cuda()) heads_of_key_and_value_may_alternate_in_dtypes_of_their_own();
    if (!on_cuda() && getenv("XQKV_TEST_IS_SLOW") == NULL) strides_of_more_than_32_bits_land_where_they_should();
    bad_views_are_refused();
    outputs_that_share_memory_are_refused();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return check_done();
}
