/* Views: every layout lands where it should, nothing between is touched, and what would collide is refused. */
#include "fixture.h"
#include <sys/mman.h>

static xqkv_projection *projection;

enum { ROWS = 5 };

static xqkv_view *view_of(xqkv_forward *call, int part) {
    return part == QUERY ? &call->query : part == KEY ? &call->key : &call->value;
}

/* Strides in elements; with slots rows go to places of which there are more, and one row goes nowhere; with bases each
   layer has its own address, the second layer's first. */
typedef struct {
    const char *name;
    int64_t layer, row, head, lane, group_rows, group;
    int has_slots, has_bases, accumulates;
} layout;

enum { PLACES = 8, LEFT_OUT = 1, BASES_APART = 400, THERE = 3 };

static int64_t slots[ROWS] = {7, -1, 0, 4, 3};

/* Where an element goes, from the part's first; -1 for nowhere. */
static int64_t place_of(const layout *of, int l, int r, int h, int d) {
    int64_t p = of->has_slots ? slots[r] : r, group_rows = of->group_rows > 0 ? of->group_rows : PLACES;
    int64_t base = of->has_bases ? (LAYERS - 1 - l) * BASES_APART : l * of->layer;
    if (p < 0) return -1;
    return base + p / group_rows * of->group + p % group_rows * of->row + h * of->head + d * of->lane;
}

static void set_layout(xqkv_view *view, const layout *of, int dtype, void **bases) {
    for (int l = 0; l < LAYERS; l++)
        bases[l] = (char *)view->data + (LAYERS - 1 - l) * BASES_APART * xqkv_dtype_bytes(dtype);
    view->dtype = dtype, view->accumulate = of->accumulates;
    view->row_stride = of->row, view->head_stride = of->head, view->width_stride = of->lane;
    view->group_rows = of->group_rows, view->group_stride = of->group;
    if (of->has_slots) view->slots = slots, view->slot_count = PLACES;
    if (of->has_bases) view->data = NULL, view->layer_data = bases;
    if (!of->has_bases) view->layer_stride = of->layer;
}

/* Runs a call with such a view of one part, and checks each element and all that lies between: Q of layer 0, K and V of
   all layers. */
static void check_layout(int part, int dtype, const layout *of) {
    static outputs out;
    static unsigned char written[sizeof out.parts[0] / 2];
    void *bases[LAYERS];
    int good = 1, layers = part == QUERY ? 1 : LAYERS;
    int64_t bytes = xqkv_dtype_bytes(dtype), columns = test_columns(part);
    xqkv_stats stats;
    xqkv_forward call = test_call(&out, part == QUERY ? ROWS : 0, part == QUERY ? 0 : ROWS);
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    poison(&out);
    memset(written, 0, sizeof written);
    call.layer_count = layers;
    lend_workspace(&call);
    set_layout(view_of(&call, part), of, dtype, bases);
    for (int at = 0; of->accumulates && at < (int)(sizeof out.parts[0] / 4); at++)
        store(out.parts[part], dtype, at, THERE);
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    for (int l = 0; l < layers; l++)
        for (int64_t at = 0; at < ROWS * columns; at++) {
            int r = (int)(at / columns), column = (int)(at % columns);
            int64_t place = place_of(of, l, r, column / test_widths[part], column % test_widths[part]);
            if (place < 0) continue;
            good &= holds(out.parts[part], dtype, place,
                          test_result(part, l, r, column, 0) + (of->accumulates ? THERE : 0));
            written[place] = 1;
        }
    const unsigned char *touched = (const unsigned char *)out.parts[part];
    for (int64_t at = 0; !of->accumulates && at < (int64_t)sizeof out.parts[0]; at++)
        good &= written[at / bytes] || touched[at] == 0xff;
    snprintf(check_detail, sizeof check_detail, "of part %d in %s", part, xqkv_dtype_name(dtype));
    check(good, of->name, __FILE__, __LINE__);
    int64_t rows = ROWS - (of->has_slots && !on_cuda() ? LEFT_OUT : 0), others = part == QUERY ? 0 : ROWS * (10 - columns);
    check((int64_t)stats.multiply_adds == layers * (rows * columns + others) * test_inputs[part], "counts", __FILE__,
          __LINE__);
}

static void layouts_land_where_they_should(int part, int dtype) {
    int64_t columns = test_columns(part), width = test_widths[part], all = ROWS * columns, places = PLACES * columns;
    const layout layouts[] = {
        {"packed", all, columns, width, 1, 0, 0, 0, 0, 0},
        {"columns of a wider buffer", ROWS * 20, 20, width, 1, 0, 0, 0, 0, 0},
        {"padded heads", ROWS * 32, 32, 8, 1, 0, 0, 0, 0, 0},
        {"head-major", all, width, ROWS * width, 1, 0, 0, 0, 0, 0},
        {"transposed", all, 1, ROWS * width, ROWS, 0, 0, 0, 0, 0},
        {"transposed rows", all, 1, ROWS, ROWS * test_heads[part], 0, 0, 0, 0, 0},
        {"layers inside rows", columns, LAYERS * columns, width, 1, 0, 0, 0, 0, 0},
        {"layers innermost", 1, LAYERS * columns, LAYERS * width, LAYERS, 0, 0, 0, 0, 0},
        {"every second lane", 2 * all, 2 * columns, 2 * width, 2, 0, 0, 0, 0, 0},
        {"groups of head-major rows", 6 * columns, width, 2 * width, 1, 2, 2 * columns, 0, 0, 0},
        {"padded groups", 9 * columns, columns, width, 1, 2, 3 * columns, 0, 0, 0},
        {"groups that continue", all, columns, width, 1, 2, 2 * columns, 0, 0, 0},
        {"one group", all, columns, width, 1, ROWS + 1, 0, 0, 0, 0},
        {"slots", places, columns, width, 1, 0, 0, 1, 0, 0},
        {"pages of head-major rows", places, width, 4 * width, 1, 4, 4 * columns, 1, 0, 0},
        {"pages of transposed rows", places, 1, 4 * width, 4, 4, 4 * columns, 1, 0, 0},
        {"layers of their own", 0, columns, width, 1, 0, 0, 0, 1, 0},
        {"head-major layers of their own", 0, width, ROWS * width, 1, 0, 0, 0, 1, 0},
        {"pages of layers of their own", 0, columns, width, 1, 2, 3 * columns, 1, 1, 0},
        {"added", all, columns, width, 1, 0, 0, 0, 0, 1},
        {"added, transposed", all, 1, ROWS * width, ROWS, 0, 0, 0, 0, 1},
        {"added to slots", places, columns, width, 1, 0, 0, 1, 0, 1},
        {"added to layers of their own", 0, columns, width, 1, 0, 0, 0, 1, 1},
    };
    for (size_t at = 0; at < sizeof layouts / sizeof *layouts; at++) check_layout(part, dtype, &layouts[at]);
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
    static char odd[64] __attribute__((aligned(8)));
    static float scale = 1;
    static void *bases[2];
    CALL_REFUSED(projection, query.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "query.data is NULL");
    CALL_REFUSED(projection, value.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "value.data is NULL");
    CALL_REFUSED(projection, key.data, NULL, XQKV_STATUS_NULL_ARGUMENT, "key.data is NULL");
    CALL_REFUSED(projection, key.dtype, 0, XQKV_STATUS_INVALID_ENUM, "key.dtype is 0");
    CALL_REFUSED(projection, query.dtype, INT32_MAX, XQKV_STATUS_INVALID_ENUM, "query.dtype is 2147483647");
    CALL_REFUSED(projection, value.dtype, INT32_MIN, XQKV_STATUS_INVALID_ENUM, "value.dtype is -2147483648");
    CALL_REFUSED(projection, key.data, odd + 1, XQKV_STATUS_MISALIGNED, "key.data");
    CALL_REFUSED(projection, query.row_stride, 11, XQKV_STATUS_INVALID_STRIDE, "query.row_stride is 11, less than the 12");
    CALL_REFUSED(projection, query.row_stride, -12, XQKV_STATUS_INVALID_STRIDE, "query.row_stride is -12");
    CALL_REFUSED(projection, key.head_stride, 2, XQKV_STATUS_INVALID_STRIDE, "key.head_stride is 2");
    CALL_REFUSED(projection, value.width_stride, 2, XQKV_STATUS_INVALID_STRIDE, "value.");
    CALL_REFUSED(projection, value.width_stride, INT64_MIN, XQKV_STATUS_INVALID_STRIDE, "value.width_stride");
    CALL_REFUSED(projection, key.row_stride, INT64_MAX / 2, XQKV_STATUS_SIZE_OVERFLOW, "key");
    CALL_REFUSED(projection, key.layer_data, bases, XQKV_STATUS_INVALID_ARGUMENT, "key.layer_data is set, and key.data");
    CALL_REFUSED(projection, key.group_rows, -2, XQKV_STATUS_INVALID_ARGUMENT, "key.group_rows is -2");
    CALL_REFUSED(projection, key.group_stride, 64, XQKV_STATUS_INVALID_ARGUMENT, "key.group_stride is 64");
    CALL_REFUSED(projection, value.slot_count, 4, XQKV_STATUS_INVALID_ARGUMENT, "value.slot_count is 4");
    CALL_REFUSED(projection, value.slots, slots, XQKV_STATUS_INVALID_ARGUMENT, "value.slot_count is 0");
    CALL_REFUSED(projection, value.slots, (const int64_t *)(odd + 4), XQKV_STATUS_MISALIGNED, "value.slots");
    CALL_REFUSED(projection, query.accumulate, 2, XQKV_STATUS_INVALID_ARGUMENT, "query.accumulate is 2");
    CALL_REFUSED(projection, query.quantization_scale, &scale, XQKV_STATUS_NOT_SUPPORTED, "query.quantization_scale");
}

/* A call of K and V with slots for V. */
static xqkv_forward slotted_call(outputs *out, const int64_t *of, int64_t places) {
    xqkv_forward call = test_call(out, 0, ROWS);
    poison(out);
    lend_workspace(&call);
    call.value.slots = of, call.value.slot_count = places;
    return call;
}

/* The host sees slots and lends itself workspace; CUDA leaves out what is out of range. */
static void bad_slots_are_refused(void) {
    static outputs out;
    static int64_t low[ROWS] = {0, 1, 2, 3, -2}, high[ROWS] = {0, 1, 8, 2, 3}, twice[ROWS] = {5, 0, -1, 5, -1};
    xqkv_forward call = slotted_call(&out, slots, PLACES);
    call.workspace_bytes = 0;
    CHECK_REFUSED(XQKV_STATUS_WORKSPACE_TOO_SMALL, "workspace_bytes is 0", run_forward(projection, &call, NULL, &error));
    call = slotted_call(&out, slots, PLACES), call.workspace = (char *)call.workspace + 128;
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "workspace is", run_forward(projection, &call, NULL, &error));
    call = slotted_call(&out, slots, PLACES), call.key.slots = slots, call.key.slot_count = PLACES;
    call.value.data = out.parts[KEY] + PLACES * 6 - 1;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "key", run_forward(projection, &call, NULL, &error));
    if (!on_cuda()) {
        call = slotted_call(&out, low, PLACES);
        CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "value.slots[4] is -2", run_forward(projection, &call, NULL, &error));
        call = slotted_call(&out, high, PLACES);
        CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "value.slots[2] is 8", run_forward(projection, &call, NULL, &error));
        call = slotted_call(&out, twice, PLACES);
        CHECK_REFUSED(XQKV_STATUS_OVERLAP, "value.slots has 5 twice", run_forward(projection, &call, NULL, &error));
    }
    CHECK(is_poisoned(&out));
    call = slotted_call(&out, high, PLACES);
    if (on_cuda()) CHECK_OK(run_forward(projection, &call, NULL, &error));
}

static void bad_layers_of_their_own_are_refused(void) {
    static outputs out;
    void *bases[LAYERS] = {out.parts[KEY], NULL};
    xqkv_forward call = test_call(&out, 0, ROWS);
    poison(&out);
    call.layer_count = LAYERS, call.key.data = NULL, call.key.layer_data = bases;
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "key.layer_data[1] is NULL", run_forward(projection, &call, NULL, &error));
    bases[1] = (char *)(out.parts[KEY] + 100) + 2;
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "key.data", run_forward(projection, &call, NULL, &error));
    bases[1] = out.parts[KEY] + ROWS * 6 - 1;
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "key", run_forward(projection, &call, NULL, &error));
    bases[1] = out.parts[VALUE];
    CHECK_REFUSED(XQKV_STATUS_OVERLAP, "value", run_forward(projection, &call, NULL, &error));
    bases[1] = out.parts[KEY] + 100, call.key.layer_stride = 60;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "key.layer_data is set", run_forward(projection, &call, NULL, &error));
    call.key.layer_stride = 0, call.key.layer_data = (void **)((char *)bases + 4);
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "key.layer_data", run_forward(projection, &call, NULL, &error));
    CHECK(is_poisoned(&out));
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
    /* On CUDA results are of the weights' dtype, here f32. */
    for (int dtype = XQKV_DTYPE_F32; dtype <= (on_cuda() ? XQKV_DTYPE_F32 : XQKV_DTYPE_BF16); dtype++)
        for (int part = QUERY; part <= VALUE; part++) layouts_land_where_they_should(part, dtype);
    key_and_value_may_be_interleaved();
    if (!on_cuda()) heads_of_key_and_value_may_alternate_in_dtypes_of_their_own();
    if (!on_cuda() && getenv("XQKV_TEST_IS_SLOW") == NULL) strides_of_more_than_32_bits_land_where_they_should();
    bad_views_are_refused();
    bad_slots_are_refused();
    bad_layers_of_their_own_are_refused();
    outputs_that_share_memory_are_refused();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return check_done();
}
