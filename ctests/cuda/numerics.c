/* Whether a row's bits depend on the rows beside it, and what workspace has to do with that. */
#include "gpu.h"

enum { WIDTH = 2048, OUTPUTS = 64, MOST = 64 };

static device_pointer rows, results, workspace;
static int64_t workspace_bytes;

/* Numbers whose sums round, so that another order of the sum is seen. */
static void fill_with_fractions(float *numbers, int count) {
    uint32_t state = 1;
    for (int at = 0; at < count; at++) {
        state = state * 1664525 + 1013904223;
        numbers[at] = (float)(state >> 8) / 16777216.0f - 0.5f;
    }
}

static xqkv_projection *wide_projection(uint64_t flags) {
    static float weights[OUTPUTS * WIDTH];
    xqkv_context_options options = gpu_options();
    xqkv_projection_options split;
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_spec spec = test_spec();
    xqkv_context *context = new_context(&options);
    CHECK_OK(xqkv_projection_options_init(&split, sizeof split));
    spec.layer_count = 1, spec.decoder_width = WIDTH, spec.query_heads = 1, spec.head_width = OUTPUTS;
    spec.key_value_heads = 0, spec.query_bias = spec.value_bias = 0, split.flags = flags;
    CHECK_OK(xqkv_projection_create(context, &spec, &split, &projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    fill_with_fractions(weights, OUTPUTS * WIDTH);
    xqkv_tensor tensor = test_tensor(weights, OUTPUTS, WIDTH);
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    return projection;
}

static xqkv_forward wide_call(int count) {
    xqkv_forward call = gpu_call(count, 0);
    call.decoder.data = (void *)(uintptr_t)rows, call.query.data = (void *)(uintptr_t)results;
    return call;
}

/* The first row's results in a call of so many rows. */
static void first_row(const xqkv_projection *projection, const xqkv_plan *plan, int count, float *row) {
    xqkv_forward call = wide_call(count);
    call.plan = plan;
    call.workspace = (void *)(uintptr_t)workspace, call.workspace_bytes = workspace_bytes;
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    GPU(cuStreamSynchronize(gpu_stream));
    GPU(cuMemcpyDtoH_v2(row, results, sizeof(float) * OUTPUTS));
}

/* In how many batches the first row has other bits than alone. */
static int batches_that_differ(const xqkv_projection *projection, const xqkv_plan *plan) {
    float alone[OUTPUTS], batched[OUTPUTS];
    int differing = 0;
    first_row(projection, plan, 1, alone);
    for (int count = 2; count <= MOST; count++) {
        first_row(projection, plan, count, batched);
        differing += memcmp(alone, batched, sizeof alone) != 0;
    }
    return differing;
}

static int64_t recommended(const xqkv_plan *plan) {
    xqkv_workspace sizes;
    CHECK_OK(xqkv_workspace_init(&sizes, sizeof sizes));
    CHECK_OK(xqkv_plan_get_workspace(plan, &sizes, &error));
    CHECK(sizes.minimum_bytes == 0 && sizes.alignment_bytes == 256);
    return sizes.recommended_bytes;
}

static void a_batch_invariant_row_has_the_same_bits_in_every_batch(void) {
    xqkv_projection *projection = wide_projection(XQKV_PROJECTION_FLAG_BATCH_INVARIANT);
    xqkv_forward example = wide_call(MOST);
    xqkv_plan *plan = new_plan(projection, &example);
    CHECK(recommended(plan) == 0);
    CHECK(batches_that_differ(projection, plan) == 0);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    CHECK(batches_that_differ(projection, NULL) == 0);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* Whether a workspace changes the first row's bits, which it does where sums are split. */
static int workspace_matters(const xqkv_projection *projection, const xqkv_plan *plan) {
    float bare[OUTPUTS], helped[OUTPUTS];
    first_row(projection, plan, 1, bare);
    workspace_bytes = 32 << 20;
    GPU(cuMemAlloc_v2(&workspace, (size_t)workspace_bytes));
    first_row(projection, plan, 1, helped);
    GPU(cuMemFree_v2(workspace));
    workspace = 0, workspace_bytes = 0;
    return memcmp(bare, helped, sizeof bare) != 0;
}

static void only_without_the_flag_does_a_workspace_split_sums(void) {
    for (int flag = 0; flag <= 1; flag++) {
        xqkv_projection *projection = wide_projection(flag ? XQKV_PROJECTION_FLAG_BATCH_INVARIANT : 0);
        xqkv_forward example = wide_call(MOST);
        xqkv_plan *plan = new_plan(projection, &example);
        CHECK((recommended(plan) > 0) == !flag);
        CHECK(workspace_matters(projection, plan) == !flag);
        CHECK_OK(xqkv_plan_destroy(plan, &error));
        CHECK_OK(xqkv_projection_destroy(projection, &error));
    }
}

int main(void) {
    static float inputs[MOST * WIDTH];
    gpu_begin();
    fill_with_fractions(inputs, MOST * WIDTH);
    rows = upload(inputs, sizeof inputs);
    GPU(cuMemAlloc_v2(&results, sizeof(float) * MOST * OUTPUTS));
    a_batch_invariant_row_has_the_same_bits_in_every_batch();
    only_without_the_flag_does_a_workspace_split_sums();
    GPU(cuMemFree_v2(rows));
    GPU(cuMemFree_v2(results));
    return gpu_done();
}
