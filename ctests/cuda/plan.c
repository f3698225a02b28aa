/* What a planned call asks of the driver and cuBLASLt, and what bits it makes. */
#include "gpu.h"

static xqkv_projection *projection;

/* Whether the calls logged are these, leaving out those that only fill in a descriptor in our own memory. */
static int log_is(const char *const *expected) {
    uint64_t at = 0;
    for (const char *name; (name = gpusim_call_log(at)) != NULL; at++) {
        if (strstr(name, "SetAttribute") != NULL) continue;
        snprintf(check_detail, sizeof check_detail, "%s, expected %s", name, *expected == NULL ? "no more" : *expected);
        if (*expected == NULL || strcmp(*expected, name) != 0) return 0;
        expected++;
    }
    return *expected == NULL;
}

#define PUSH "cuCtxPushCurrent_v2"
#define POP "cuCtxPopCurrent_v2"
#define MATMUL "cublasLtMatmul"

static void a_planned_call_makes_its_matmuls_and_two_calls_more(void) {
    static const char *const decode[] = {PUSH, MATMUL, POP, NULL}, *const mixed[] = {PUSH, MATMUL, MATMUL, MATMUL, POP, NULL};
    xqkv_stats stats;
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    xqkv_forward call = gpu_call(3, 4);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan;
    poison_device();
    gpusim_reset_calls();
    CHECK_OK(xqkv_projection_forward(projection, &call, &stats, &error));
    CHECK(log_is(mixed) && stats.matmuls == 3 && stats.plans_made == 0);
    CHECK(has_call(fetched(gpu_stream), &call, 0));
    call.encoder.rows = 0;
    gpusim_reset_calls();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(log_is(decode));
    GPU(cuStreamSynchronize(gpu_stream));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void events_are_one_call_each(void) {
    static const char *const expected[] = {PUSH, "cuStreamWaitEvent", MATMUL, "cuEventRecord", POP, NULL};
    void *before = new_event(), *after = new_event();
    xqkv_forward call = gpu_call(3, 0);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan, call.wait_event = before, call.signal_event = after;
    GPU(cuEventRecord(before, gpu_stream));
    gpusim_reset_calls();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(log_is(expected));
    GPU(cuStreamSynchronize(gpu_stream));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    GPU(cuEventDestroy_v2(before));
    GPU(cuEventDestroy_v2(after));
}

static void every_number_of_rows_is_right_and_executes_what_is_necessary(void) {
    enum { MOST = 33 };
    xqkv_forward call = gpu_call(MOST, MOST);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan;
    for (int rows = 1; rows <= MOST; rows++) {
        call.decoder.rows = rows, call.encoder.rows = MOST + 1 - rows;
        poison_device();
        uint64_t before = gpusim_multiply_adds();
        CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
        CHECK(has_call(fetched(gpu_stream), &call, 0));
        int64_t needed = rows * 12 * DECODER_WIDTH + (MOST + 1 - rows) * (6 + 4) * ENCODER_WIDTH;
        CHECK((int64_t)(gpusim_multiply_adds() - before) == needed);
    }
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void calls_that_do_not_fit_launch_nothing(void) {
    xqkv_forward example = gpu_call(3, 4);
    xqkv_plan *plan = new_plan(projection, &example);
    example.plan = plan;
    xqkv_forward more_rows = example, strided = example, misaligned = example;
    more_rows.decoder.rows = 4, strided.query.row_stride = 13;
    misaligned.query.data = (char *)misaligned.query.data + 4;
    gpusim_reset_calls();
    CHECK_REFUSED(XQKV_STATUS_PLAN_MISMATCH, "at most 3", xqkv_projection_forward(projection, &more_rows, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_PLAN_MISMATCH, "row_stride", xqkv_projection_forward(projection, &strided, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_PLAN_MISMATCH, "16", xqkv_projection_forward(projection, &misaligned, NULL, &error));
    CHECK(gpusim_calls(NULL) == 0);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void a_plan_survives_a_commit(void) {
    xqkv_forward call = gpu_call(3, 4);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan;
    for (int generation = 1; generation >= 0; generation--) {
        load(projection, generation);
        poison_device();
        CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
        CHECK(has_call(fetched(gpu_stream), &call, generation));
    }
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

/* Lends a call what its own plan asks for, and no byte more. */
static void lend_least(xqkv_forward *call, device_pointer workspace) {
    xqkv_workspace needed;
    xqkv_plan *plan = new_plan(projection, call);
    CHECK_OK(xqkv_workspace_init(&needed, sizeof needed));
    CHECK_OK(xqkv_plan_get_workspace(plan, &needed, &error));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    call->workspace = (void *)(uintptr_t)workspace, call->workspace_bytes = needed.minimum_bytes;
}

/* The plan that the prefill leaves behind would serve the decode step as well, for more workspace. */
static void a_call_without_a_plan_lends_what_it_needs_and_not_what_an_earlier_one_did(void) {
    device_pointer workspace;
    GPU(cuMemAlloc_v2(&workspace, 1 << 16));
    xqkv_forward call = gpu_call(3, 40);
    xqkv_view *views[] = {&call.query, &call.key, &call.value};
    for (int part = QUERY; part <= VALUE; part++)
        views[part]->group_rows = 2, views[part]->group_stride = 3 * test_columns(part);
    lend_least(&call, workspace);
    const int64_t prefill_bytes = call.workspace_bytes;
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    call.encoder.rows = 0;
    lend_least(&call, workspace);
    CHECK(call.workspace_bytes > 0 && call.workspace_bytes < prefill_bytes);
    GPU(cuStreamSynchronize(gpu_stream));
    poison_device();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(has_rows(fetched(gpu_stream), QUERY, (int)call.layer, 2, 0));
    call.workspace_bytes--;
    CHECK_REFUSED(XQKV_STATUS_WORKSPACE_TOO_SMALL, "needs", xqkv_projection_forward(projection, &call, NULL, &error));
    GPU(cuMemFree_v2(workspace));
}

int main(void) {
    gpu_begin();
    projection = ready_projection(1);
    a_planned_call_makes_its_matmuls_and_two_calls_more();
    events_are_one_call_each();
    every_number_of_rows_is_right_and_executes_what_is_necessary();
    calls_that_do_not_fit_launch_nothing();
    a_plan_survives_a_commit();
    a_call_without_a_plan_lends_what_it_needs_and_not_what_an_earlier_one_did();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return gpu_done();
}
