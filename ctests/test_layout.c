/* However weights lie in memory, [outputs, inputs] or [inputs, outputs], parts behind each other or together per head,
   whole or cut, a forward has the same bits; and nothing is read of other ranks' elements. */
#include "fixture.h"
#include <sys/mman.h>

enum { MOST_INPUTS = 384, MOST_OUTPUTS = 1200, ROWS = 3, PAGE = 4096 };

/* One projection: the uncut layer, what it is kept in, and this rank's heads of Q and of K and V. */
typedef struct {
    int heads[2], width, value_width, inputs, dtype;
    int begin[2], count[2];
} example;

static const example examples[] = {
    {{6, 6}, 64, 64, 384, XQKV_DTYPE_F32, {3, 3}, {3, 3}},    /* Whisper tiny, second of two ranks */
    {{8, 2}, 32, 32, 96, XQKV_DTYPE_BF16, {2, 0}, {2, 1}},    /* a replicated key/value head */
    {{8, 2}, 32, 32, 96, XQKV_DTYPE_F16, {3, 0}, {4, 2}},     /* uneven, parts of two groups */
    {{12, 4}, 24, 16, 50, XQKV_DTYPE_F32, {6, 2}, {6, 2}},    /* V narrower than K */
    {{8, 4}, 16, 16, 40, XQKV_DTYPE_BF16, {3, 0}, {2, 4}},    /* Q cut, K and V whole */
    {{8, 4}, 16, 16, 40, XQKV_DTYPE_F16, {0, 1}, {0, 2}},     /* no query heads */
    {{8, 4}, 16, 16, 40, XQKV_DTYPE_F32, {3, 0}, {3, 0}},     /* no key/value heads */
    {{12, 1}, 40, 40, 80, XQKV_DTYPE_BF16, {0, 0}, {12, 1}},  /* one key/value head, whole */
};

/* How a tensor lies. */
typedef struct {
    int part, layout, order, extent, dtype, memory;
} form;

typedef struct {
    int part, output;
} named;

static unsigned char elements[MOST_INPUTS * (MOST_OUTPUTS + 3) * sizeof(float)];
static struct {
    unsigned char input[ROWS * MOST_INPUTS * sizeof(float)];
    float parts[3][ROWS * MOST_OUTPUTS];
} io;

static int width_of(const example *given, int part) { return part == VALUE ? given->value_width : given->width; }

static int is_owned(const example *given, named row) {
    int side = row.part != QUERY, head = row.output / width_of(given, row.part);
    return head >= given->begin[side] && head < given->begin[side] + given->count[side];
}

static float weight_at(named row, int input) { return (float)((row.output * 7 + input * 3 + row.part) % 7 - 3); }

static float bias_at(named row) { return (float)((row.output * 5 + row.part) % 11 - 5); }

/* Lists the rows of a tensor: of each group the heads of one part, then those of the next. */
static int list_rows(const example *given, const form *how, named *rows) {
    int count = 0, groups = how->order == XQKV_FUSED_ORDER_PER_HEAD ? given->heads[1] : 1;
    int first = how->part == XQKV_PART_QUERY_KEY_VALUE || how->part == XQKV_PART_QUERY ? QUERY : KEY;
    int last = how->part == XQKV_PART_QUERY ? QUERY : VALUE;
    for (int group = 0; group < groups; group++)
        for (int part = first; part <= last; part++) {
            int outputs = given->heads[part != QUERY] / groups * width_of(given, part);
            for (int at = 0; at < outputs; at++) {
                named row = {part, group * outputs + at};
                if (how->extent == XQKV_EXTENT_WHOLE || is_owned(given, row)) rows[count++] = row;
            }
        }
    return count;
}

/* The device's copy of the elements, if they are to come from there. */
static void *placed(int memory) {
    uint64_t device = 0;
    if (memory == XQKV_MEMORY_HOST) return elements;
    DRIVER("cuMemAlloc_v2", (uint64_t *, size_t), (&device, sizeof elements));
    DRIVER("cuMemcpyHtoD_v2", (uint64_t, const void *, size_t), (device, elements, sizeof elements));
    DRIVER("cuCtxSynchronize", (void), ());
    return (void *)(uintptr_t)device;
}

static xqkv_status put_elements(xqkv_update *update, const form *how, int kind, xqkv_tensor *tensor) {
    tensor->data = placed(how->memory);
    tensor->dtype = how->dtype, tensor->convert = 1, tensor->extent = how->extent;
    tensor->layout = how->layout, tensor->fused_order = how->order, tensor->memory = how->memory;
    xqkv_status status = xqkv_update_put(update, 0, how->part, kind, tensor, &error);
    if (how->memory == XQKV_MEMORY_DEVICE) DRIVER("cuMemFree_v2", (uint64_t), ((uint64_t)(uintptr_t)tensor->data));
    return status;
}

/* Puts a weight that is NaN wherever it is not this rank's, with three elements between its rows. */
static void put_fused_weight(xqkv_update *update, const example *given, const form *how) {
    static named rows[MOST_OUTPUTS];
    int count = list_rows(given, how, rows), across = how->layout == XQKV_LAYOUT_IN_OUT;
    int stride = (across ? count : given->inputs) + 3;
    memset(elements, 0xff, sizeof elements);
    for (int at = 0; at < count; at++)
        for (int input = 0; input < given->inputs && is_owned(given, rows[at]); input++)
            store(elements, how->dtype, across ? input * stride + at : at * stride + input, weight_at(rows[at], input));
    xqkv_tensor tensor = test_tensor(NULL, count, given->inputs);
    tensor.row_stride = stride;
    CHECK_OK(put_elements(update, how, XQKV_KIND_WEIGHT, &tensor));
}

static void put_fused_bias(xqkv_update *update, const example *given, const form *how) {
    static named rows[MOST_OUTPUTS];
    int count = list_rows(given, how, rows);
    memset(elements, 0xff, sizeof elements);
    for (int at = 0; at < count; at++)
        if (is_owned(given, rows[at])) store(elements, how->dtype, at * 2, bias_at(rows[at]));
    xqkv_tensor tensor = test_tensor(NULL, count, 1);
    tensor.row_stride = 2;
    CHECK_OK(put_elements(update, how, XQKV_KIND_BIAS, &tensor));
}

static void load_as(xqkv_projection *projection, const example *given, const form *how) {
    xqkv_update *update = NULL;
    form query = *how;
    query.part = XQKV_PART_QUERY;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    put_fused_weight(update, given, how);
    put_fused_bias(update, given, how);
    if (how->part == XQKV_PART_KEY_VALUE) put_fused_weight(update, given, &query), put_fused_bias(update, given, &query);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
}

static void run(const xqkv_projection *projection, const example *given) {
    xqkv_forward call;
    xqkv_view *views[] = {&call.query, &call.key, &call.value};
    memset(&io, 0xff, sizeof io);
    for (int at = 0; at < ROWS * given->inputs; at++)
        store(io.input, given->dtype, at, test_row(at / given->inputs, at % given->inputs));
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    call.decoder.data = call.encoder.data = io.input;
    call.decoder.rows = call.encoder.rows = ROWS;
    call.decoder.dtype = call.encoder.dtype = given->dtype;
    for (int part = QUERY; part <= VALUE; part++) views[part]->data = io.parts[part], views[part]->dtype = XQKV_DTYPE_F32;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
}

/* The sums, which are integers. */
static int is_right(const example *given, int part) {
    int side = part != QUERY, width = width_of(given, part), columns = given->count[side] * width;
    for (int at = 0; at < ROWS * columns; at++) {
        named row = {part, given->begin[side] * width + at % columns};
        float sum = bias_at(row);
        for (int input = 0; input < given->inputs; input++)
            sum += weight_at(row, input) * test_row(at / columns, input);
        if (io.parts[part][at] != sum) return 0;
    }
    return isnan(io.parts[part][ROWS * columns]);
}

static xqkv_projection *projection_of(const xqkv_context *context, const example *given) {
    xqkv_projection *projection = NULL;
    xqkv_projection_options options;
    xqkv_spec spec = test_spec();
    spec.layer_count = 1, spec.weight_dtype = given->dtype;
    spec.decoder_width = spec.encoder_width = given->inputs;
    spec.query_heads = given->heads[0], spec.key_value_heads = given->heads[1];
    spec.head_width = given->width, spec.value_head_width = given->value_width, spec.key_bias = 1;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.split = XQKV_SPLIT_EXPLICIT;
    options.query_head_begin = given->begin[0], options.query_head_count = given->count[0];
    options.key_value_head_begin = given->begin[1], options.key_value_head_count = given->count[1];
    CHECK_OK(xqkv_projection_create(context, &spec, &options, &projection, &error));
    return projection;
}

/* All 16 ways, with another dtype and memory from one to the next. */
static void every_form_of_the_same_weights_has_the_same_bits(const xqkv_context *context, const example *given) {
    static const int dtypes[] = {XQKV_DTYPE_F32, XQKV_DTYPE_BF16, XQKV_DTYPE_F16};
    static float expected[3][ROWS * MOST_OUTPUTS];
    xqkv_projection *projection = projection_of(context, given);
    for (int at = 0; at < 16; at++) {
        form how = {at & 1 ? XQKV_PART_KEY_VALUE : XQKV_PART_QUERY_KEY_VALUE, at >> 1 & 1, at >> 2 & 1, at >> 3 & 1,
                    dtypes[at % 3], on_cuda() && at % 5 > 2 ? XQKV_MEMORY_DEVICE : XQKV_MEMORY_HOST};
        load_as(projection, given, &how);
        run(projection, given);
        for (int part = QUERY; part <= VALUE; part++) CHECK(is_right(given, part));
        if (at == 0) memcpy(expected, io.parts, sizeof expected);
        snprintf(check_detail, sizeof check_detail, "example %d, form %d", (int)(given - examples), at);
        CHECK(memcmp(expected, io.parts, sizeof expected) == 0);
    }
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* Heads of 64 over 32 inputs in bf16 are a page each; across, 32 heads of one input are. All pages without a row of this
   rank can be neither read nor written. */
static void no_page_of_another_rank_is_touched(const xqkv_context *context, int layout, int order) {
    static named rows[128 * 64];
    int across = layout == XQKV_LAYOUT_IN_OUT, heads = across ? 128 : 16, inputs = 32;
    example given = {{heads / 2, heads / 4}, 64, 64, inputs, XQKV_DTYPE_BF16, {heads / 4, heads / 8}, {heads / 4, heads / 8}};
    form how = {XQKV_PART_QUERY_KEY_VALUE, layout, order, XQKV_EXTENT_WHOLE, XQKV_DTYPE_BF16, XQKV_MEMORY_HOST};
    int count = list_rows(&given, &how, rows);
    size_t bytes = (size_t)(count * inputs * 2), pages = bytes / PAGE;
    char *used = calloc(pages, 1), *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    xqkv_projection *projection = projection_of(context, &given);
    xqkv_update *update = NULL;
    CHECK(data != MAP_FAILED && bytes % PAGE == 0);
    for (int at = 0; at < count * inputs; at++) used[at * 2 / PAGE] |= (char)is_owned(&given, rows[across ? at % count : at / inputs]);
    for (size_t page = 0; page < pages; page++)
        if (!used[page]) CHECK(mprotect(data + page * PAGE, PAGE, PROT_NONE) == 0);
    CHECK(memchr(used, 0, pages) != NULL && memchr(used, 1, pages) != NULL);
    xqkv_tensor tensor = test_tensor(data, count, inputs);
    tensor.dtype = XQKV_DTYPE_BF16, tensor.layout = layout, tensor.fused_order = order;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY_KEY_VALUE, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK(munmap(data, bytes) == 0);
    free(used);
}

static void a_stride_across_is_held_against_the_outputs(const xqkv_context *context) {
    xqkv_projection *projection = test_projection(context, NULL);
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    xqkv_tensor tensor = test_tensor(elements, 12, DECODER_WIDTH);
    tensor.layout = XQKV_LAYOUT_IN_OUT, tensor.row_stride = 11;
    CHECK_REFUSED(XQKV_STATUS_INVALID_STRIDE, "12 rows",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor.row_stride = INT64_MAX / 2;
    CHECK_REFUSED(XQKV_STATUS_SIZE_OVERFLOW, "row_stride",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor.row_stride = 0;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* Puts a fused weight of an example that the device lends, and nothing else. */
static xqkv_status borrow(const xqkv_context *context, const example *given, int layout, int order) {
    static named rows[MOST_OUTPUTS];
    form how = {XQKV_PART_QUERY_KEY_VALUE, layout, order, XQKV_EXTENT_WHOLE, given->dtype, XQKV_MEMORY_DEVICE};
    xqkv_projection *projection = projection_of(context, given);
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    xqkv_tensor tensor = test_tensor(NULL, list_rows(given, &how, rows), given->inputs);
    tensor.ownership = XQKV_OWNERSHIP_BORROW;
    xqkv_status status = put_elements(update, &how, XQKV_KIND_WEIGHT, &tensor);
    xqkv_error answered = error;
    CHECK_OK(xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    error = answered;
    return status;
}

static void only_what_lies_as_it_is_used_can_be_borrowed(const xqkv_context *context) {
    CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "XQKV_LAYOUT_OUT_IN", borrow(context, &examples[0], XQKV_LAYOUT_IN_OUT, 0));
    CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "query rows lie in 3 places",
                  borrow(context, &examples[0], 0, XQKV_FUSED_ORDER_PER_HEAD));
    CHECK_OK(borrow(context, &examples[1], 0, XQKV_FUSED_ORDER_PER_HEAD));
    CHECK_OK(borrow(context, &examples[7], 0, XQKV_FUSED_ORDER_PER_HEAD));
}

int main(void) {
    void *current = NULL;
    if (on_cuda()) {
        DRIVER("cuInit", (unsigned), (0));
        DRIVER("cuDevicePrimaryCtxRetain", (void **, int), (&current, 0));
        DRIVER("cuCtxPushCurrent_v2", (void *), (current));
    }
    xqkv_context *context = test_context(1);
    for (size_t at = 0; at < sizeof examples / sizeof *examples; at++)
        every_form_of_the_same_weights_has_the_same_bits(context, &examples[at]);
    for (int at = 0; at < 4; at++) no_page_of_another_rank_is_touched(context, at & 1, at >> 1);
    a_stride_across_is_held_against_the_outputs(context);
    if (on_cuda()) only_what_lies_as_it_is_used_can_be_borrowed(context);
    CHECK_OK(xqkv_context_destroy(context, &error));
    if (on_cuda()) DRIVER("cuCtxPopCurrent_v2", (void **), (&current));
    if (on_cuda()) DRIVER("cuDevicePrimaryCtxRelease_v2", (int), (0));
    return check_done();
}
