/* Weights on the device: what a commit takes and gives back, what is borrowed, and when the old ones go. */
#include "gpu.h"

enum { WIDTH = 7, HEADS = 2, LANES = 4, PART_ROWS = HEADS * LANES, FUSED = 3 * PART_ROWS * WIDTH };

/* An allocator of the engine's, which notes what it is asked. */
static int64_t asked_bytes, given_count, freed_count;
static void *freed_stream;

static void *allocate(int64_t bytes, int64_t alignment, void *stream, void *user) {
    device_pointer address = 0;
    CHECK(user == &given_count && stream != NULL && alignment == 256);
    GPU(cuMemAlloc_v2(&address, (size_t)bytes));
    asked_bytes = bytes, given_count++;
    return (void *)(uintptr_t)address;
}

static void release(void *memory, int64_t bytes, void *stream, void *user) {
    CHECK(user == &given_count && bytes > 0);
    if (stream != NULL) GPU(cuStreamSynchronize(stream));
    GPU(cuMemFree_v2((device_pointer)(uintptr_t)memory));
    freed_stream = stream, freed_count++;
}

static int64_t commit_bytes(xqkv_update *update) {
    int64_t bytes = -1;
    CHECK_OK(xqkv_update_get_commit_bytes(update, &bytes, &error));
    return bytes;
}

static xqkv_update *begin(const xqkv_projection *projection) {
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    return update;
}

static void a_commit_asks_the_allocator_for_what_it_told(void) {
    xqkv_context_options options = gpu_options();
    options.allocate = allocate, options.free = release, options.allocator_user = &given_count;
    xqkv_context *context = new_context(&options);
    xqkv_projection *projection = test_projection(context, NULL);
    xqkv_update *update = begin(projection);
    put_all(update, 0);
    int64_t told = commit_bytes(update);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(given_count == 1 && asked_bytes == told && told > 0);
    xqkv_forward call = gpu_call(3, 4);
    poison_device();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    load(projection, 1);
    CHECK(given_count == 2 && freed_count == 0 && asked_bytes == told);
    CHECK_OK(xqkv_context_reclaim(context, &gpu_stream, 1, NULL, &error));
    CHECK(freed_count == 1 && freed_stream == gpu_stream);
    CHECK(has_call(fetched(gpu_stream), &call, 0));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK(freed_count == 2);
}

static int64_t waiting(const xqkv_context *context, int64_t stream_count) {
    int64_t bytes = -1;
    CHECK_OK(xqkv_context_reclaim(context, stream_count > 0 ? &gpu_stream : NULL, stream_count, &bytes, &error));
    return bytes;
}

static void old_weights_go_behind_the_work_that_reads_them(void) {
    xqkv_context_options options = gpu_options();
    xqkv_context *context = new_context(&options);
    xqkv_projection *projection = test_projection(context, NULL);
    load(projection, 0);
    xqkv_forward call = gpu_call(3, 4);
    xqkv_plan *plan = new_plan(projection, &call);
    int64_t loaded = gpusim_live("allocations");
    call.plan = plan;
    poison_device();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    load(projection, 1);
    CHECK(gpusim_live("allocations") == loaded + 1);
    CHECK(waiting(context, 1) > 0 && gpusim_live("allocations") == loaded + 1);
    CHECK(has_call(fetched(gpu_stream), &call, 0));
    CHECK(waiting(context, 1) == 0 && gpusim_live("allocations") == loaded);
    load(projection, 0);
    CHECK(waiting(context, 0) == 0 && gpusim_live("allocations") == loaded);
    load(projection, 1);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK(gpusim_live("allocations") == loaded + 1);
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK(gpusim_live("allocations") == loaded - 1);
}

static void a_partial_commit_keeps_the_others(void) {
    xqkv_projection *projection = ready_projection(1);
    xqkv_update *update = begin(projection);
    CHECK_OK(put_weight(update, 0, KEY, 1));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    xqkv_forward call = gpu_call(3, 4);
    for (call.layer = 0; call.layer < LAYERS; call.layer++) {
        poison_device();
        CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
        const outputs *out = fetched(gpu_stream);
        int layer = (int)call.layer;
        CHECK(has_rows(out, QUERY, layer, 3, 0) && has_rows(out, KEY, layer, 4, layer == 0));
        CHECK(has_rows(out, VALUE, layer, 4, 0));
    }
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* A layer without biases whose Q, K and V are equally wide, as a fused tensor of the engine's has them. */
static xqkv_projection *fused_projection(void) {
    xqkv_context_options options = gpu_options();
    xqkv_context *context = new_context(&options);
    xqkv_spec spec = test_spec();
    xqkv_projection *projection = NULL;
    spec.layer_count = 1, spec.decoder_width = spec.encoder_width = WIDTH;
    spec.query_heads = spec.key_value_heads = HEADS;
    spec.head_width = spec.value_head_width = LANES;
    spec.query_bias = spec.value_bias = 0;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    return projection;
}

static device_pointer fused_weights(void) {
    float weights[FUSED];
    for (int at = 0; at < FUSED; at++) weights[at] = (float)(at % 13 - 6);
    return upload(weights, sizeof weights);
}

static int64_t put_fused(xqkv_projection *projection, device_pointer weights, int ownership) {
    xqkv_update *update = begin(projection);
    xqkv_tensor tensor = test_tensor((void *)(uintptr_t)weights, 3 * PART_ROWS, WIDTH);
    tensor.memory = XQKV_MEMORY_DEVICE, tensor.ownership = ownership;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY_KEY_VALUE, XQKV_KIND_WEIGHT, &tensor, &error));
    int64_t bytes = commit_bytes(update), before = gpusim_live("bytes");
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK((gpusim_live("bytes") - before >= bytes) && ((bytes == 0) == (gpusim_live("bytes") == before)));
    return bytes;
}

/* Runs three rows of each side; V's columns stand behind K's in one buffer if they are interleaved. */
static void run_fused(const xqkv_projection *projection, int interleaved, int matmuls) {
    enum { ROWS = 3 };
    static float out[3][ROWS * PART_ROWS * 2];
    xqkv_stats stats;
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    device_pointer target = upload(out, sizeof out), base = target + sizeof out[0];
    int64_t stride = interleaved ? 2 * PART_ROWS : PART_ROWS;
    xqkv_forward call = gpu_call(ROWS, ROWS);
    call.decoder.data = call.encoder.data;
    call.query.data = (void *)(uintptr_t)target, call.key.data = (void *)(uintptr_t)base;
    call.value.data = (void *)(uintptr_t)(base + sizeof(float) * PART_ROWS * (interleaved ? 1 : ROWS));
    call.key.row_stride = call.value.row_stride = stride;
    CHECK_OK(xqkv_projection_forward(projection, &call, &stats, &error));
    CHECK(stats.matmuls == matmuls);
    GPU(cuStreamSynchronize(gpu_stream));
    GPU(cuMemcpyDtoH_v2(out, target, sizeof out));
    for (int at = 0; at < 3 * ROWS * PART_ROWS; at++) {
        int part = at / (ROWS * PART_ROWS), row = at / PART_ROWS % ROWS, output = at % PART_ROWS;
        float sum = 0;
        for (int input = 0; input < WIDTH; input++)
            sum += test_row(row, input) * (float)(((part * PART_ROWS + output) * WIDTH + input) % 13 - 6);
        int64_t behind = part < VALUE ? 0 : PART_ROWS * (interleaved ? 1 : ROWS);
        CHECK(out[part > 0][behind + row * (part > 0 ? stride : PART_ROWS) + output] == sum);
    }
    GPU(cuMemFree_v2(target));
}

static void a_fused_tensor_is_borrowed_for_nothing_and_copied_for_its_bytes(void) {
    device_pointer weights = fused_weights();
    xqkv_projection *projection = fused_projection();
    CHECK(put_fused(projection, weights, XQKV_OWNERSHIP_BORROW) == 0);
    run_fused(projection, 1, 2);
    run_fused(projection, 0, 2);
    CHECK(put_fused(projection, weights, XQKV_OWNERSHIP_COPY) >= (int64_t)sizeof(float) * FUSED);
    GPU(cuMemFree_v2(weights));
    run_fused(projection, 1, 2);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* K and V lent from places of their own, V far larger: a timed plan runs V's matmul, and must not read K's matrix for it. */
static void a_timed_plan_reads_each_part_where_it_is(void) {
    enum { VALUE_LANES = 600, ROWS = 3 };
    static const int parts[] = {XQKV_PART_KEY, XQKV_PART_VALUE};
    static const float zeros[VALUE_LANES * WIDTH];
    xqkv_context *context = new_context(NULL);
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_plan *plan = NULL;
    xqkv_plan_options options;
    xqkv_forward call;
    xqkv_spec spec;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    spec.weight_dtype = XQKV_DTYPE_F32, spec.layer_count = 1, spec.encoder_width = WIDTH;
    spec.key_value_heads = 1, spec.head_width = LANES, spec.value_head_width = VALUE_LANES;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    device_pointer lent[2];
    for (int part = 0; part < 2; part++) {
        int rows = part == 0 ? LANES : VALUE_LANES;
        lent[part] = upload(zeros, sizeof(float) * (size_t)(rows * WIDTH));
        xqkv_tensor tensor = test_tensor((const void *)(uintptr_t)lent[part], rows, WIDTH);
        tensor.memory = XQKV_MEMORY_DEVICE, tensor.ownership = XQKV_OWNERSHIP_BORROW;
        CHECK_OK(xqkv_update_put(update, 0, parts[part], XQKV_KIND_WEIGHT, &tensor, &error));
    }
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    device_pointer rows = upload(zeros, sizeof(float) * ROWS * WIDTH), out = upload(zeros, sizeof zeros);
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    call.encoder.data = (const void *)(uintptr_t)rows, call.encoder.rows = ROWS, call.encoder.dtype = XQKV_DTYPE_F32;
    call.key.data = (void *)(uintptr_t)out, call.value.data = (void *)(uintptr_t)(out + 256);
    call.key.dtype = call.value.dtype = XQKV_DTYPE_F32;
    CHECK_OK(xqkv_plan_options_init(&options, sizeof options));
    options.flags = XQKV_PLAN_FLAG_TIMED;
    CHECK_OK(xqkv_plan_create(projection, &call, &options, &plan, &error));
    CHECK(gpusim_violations() == 0);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    for (int part = 0; part < 2; part++) GPU(cuMemFree_v2(lent[part]));
    GPU(cuMemFree_v2(rows)), GPU(cuMemFree_v2(out));
}

int main(void) {
    gpu_begin();
    a_commit_asks_the_allocator_for_what_it_told();
    old_weights_go_behind_the_work_that_reads_them();
    a_partial_commit_keeps_the_others();
    a_fused_tensor_is_borrowed_for_nothing_and_copied_for_its_bytes();
    a_timed_plan_reads_each_part_where_it_is();
    return gpu_done();
}
