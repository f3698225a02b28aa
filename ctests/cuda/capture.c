/* Planned forwards: exactly the calls that were promised, legal in a capture, and right when a graph is launched again. */
#include "engine.h"

static xqkv_projection *projection;

/* Calls of the driver and of cuBLASLt that a body makes beside those that only write descriptors. */
static int64_t counted(const char *function, int64_t before) {
    return simulated_calls(function) - before;
}

static void a_planned_forward_makes_one_matmul_for_each_product_and_two_driver_calls(void) {
    static const char *quiet[] = {"cuMemAlloc_v2", "cuMemFree_v2", "cuStreamSynchronize", "cuMemcpyHtoDAsync_v2",
                                  "cuPointerGetAttribute", "cuStreamIsCapturing", "cuStreamGetCtx",
                                  "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmulAlgoCheck"};
    enum { QUIET = sizeof quiet / sizeof *quiet };
    device_call made = new_call(3, 4);
    xqkv_plan *plan = NULL;
    xqkv_stats stats;
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    CHECK_OK(xqkv_plan_create(projection, &made.call, NULL, &plan, &error));
    made.call.plan = plan;
    int64_t before[QUIET], all = simulated_calls(NULL), sets, push, pop, matmul;
    for (int at = 0; at < QUIET; at++) before[at] = simulated_calls(quiet[at]);
    sets = simulated_calls("cublasLtMatrixLayoutSetAttribute") + simulated_calls("cublasLtMatmulDescSetAttribute");
    push = simulated_calls("cuCtxPushCurrent_v2"), pop = simulated_calls("cuCtxPopCurrent_v2");
    matmul = simulated_calls("cublasLtMatmul");
    CHECK_OK(xqkv_projection_forward(projection, &made.call, &stats, &error));
    if (all >= 0) {
        sets = simulated_calls("cublasLtMatrixLayoutSetAttribute") + simulated_calls("cublasLtMatmulDescSetAttribute") - sets;
        for (int at = 0; at < QUIET; at++) CHECK(counted(quiet[at], before[at]) == 0);
        CHECK(counted("cuCtxPushCurrent_v2", push) == 1 && counted("cuCtxPopCurrent_v2", pop) == 1);
        CHECK(counted("cublasLtMatmul", matmul) == stats.matmuls);
        CHECK(counted(NULL, all) == stats.matmuls + 2 + sets);
    }
    CHECK(stats.plans_made == 0 && stats.multiply_adds == 3 * 12 * DECODER_WIDTH + 4 * 10 * ENCODER_WIDTH);
    CHECK(has_results(&made, 3, 4, 0, 0));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    free_call(&made);
}

static void *captured(void *stream, device_call *made) {
    void *graph = NULL, *executable = NULL;
    DRIVER("cuStreamBeginCapture_v2", (void *, int), (stream, 0));
    CHECK_OK(xqkv_projection_forward(projection, &made->call, NULL, &error));
    DRIVER("cuStreamEndCapture", (void *, void **), (stream, &graph));
    DRIVER("cuGraphInstantiateWithFlags", (void **, void *, unsigned long long), (&executable, graph, 0));
    DRIVER("cuGraphDestroy", (void *), (graph));
    return executable;
}

static void a_captured_forward_is_right_for_inputs_that_change(void) {
    static float rows[MOST_ROWS * DECODER_WIDTH];
    device_call made = new_call(3, 4);
    xqkv_plan *plan = NULL;
    CHECK_OK(xqkv_plan_create(projection, &made.call, NULL, &plan, &error));
    made.call.plan = plan, made.call.stream = new_stream();
    void *executable = captured(made.call.stream, &made);
    for (int replay = 0; replay < 20; replay++) {
        for (int at = 0; at < 3 * DECODER_WIDTH; at++) rows[at] = test_row(at / DECODER_WIDTH + replay, at % DECODER_WIDTH);
        upload(made.decoder, rows, sizeof rows);
        DRIVER("cuGraphLaunch", (void *, void *), (executable, made.call.stream));
        static outputs found;
        download(&found, made.out, sizeof found);
        for (int at = 0; at < 3 * 12; at++)
            CHECK(found.parts[QUERY][at] == test_result(QUERY, 0, at / 12 + replay, at % 12, 0));
        CHECK(has_rows(&found, KEY, 0, 4, 0) && has_rows(&found, VALUE, 0, 4, 0));
    }
    DRIVER("cuGraphExecDestroy", (void *), (executable));
    DRIVER("cuStreamDestroy_v2", (void *), (made.call.stream));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    free_call(&made);
}

static void a_capture_without_a_plan_is_told_and_stays_good(void) {
    device_call made = new_call(7, 0);
    void *graph = NULL;
    made.call.stream = new_stream();
    DRIVER("cuStreamBeginCapture_v2", (void *, int), (made.call.stream, 0));
    CHECK_REFUSED(XQKV_STATUS_PLAN_NEEDED, "xqkv_plan_create", xqkv_projection_forward(projection, &made.call, NULL, &error));
    DRIVER("cuStreamEndCapture", (void *, void **), (made.call.stream, &graph));
    DRIVER("cuGraphDestroy", (void *), (graph));
    /* A plan that an earlier call made will do. */
    CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
    void *executable = captured(made.call.stream, &made);
    DRIVER("cuGraphExecDestroy", (void *), (executable));
    DRIVER("cuStreamDestroy_v2", (void *), (made.call.stream));
    free_call(&made);
}

static void a_commit_beside_a_capture_breaks_nothing(void) {
    device_call made = new_call(3, 0);
    xqkv_plan *plan = NULL;
    void *graph = NULL;
    CHECK_OK(xqkv_plan_create(projection, &made.call, NULL, &plan, &error));
    made.call.plan = plan, made.call.stream = new_stream();
    DRIVER("cuStreamBeginCapture_v2", (void *, int), (made.call.stream, 0));
    load(projection, 0);
    CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
    DRIVER("cuStreamEndCapture", (void *, void **), (made.call.stream, &graph));
    CHECK(graph != NULL);
    DRIVER("cuGraphDestroy", (void *), (graph));
    DRIVER("cuStreamDestroy_v2", (void *), (made.call.stream));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    free_call(&made);
}

int main(void) {
    engine_open();
    projection = ready_projection(1);
    a_planned_forward_makes_one_matmul_for_each_product_and_two_driver_calls();
    a_captured_forward_is_right_for_inputs_that_change();
    a_capture_without_a_plan_is_told_and_stays_good();
    a_commit_beside_a_capture_breaks_nothing();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return engine_close();
}
