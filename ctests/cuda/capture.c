/* Stream capture: planned calls are recorded and replayed, others are refused without harm to the capture, and commits
   go on beside it. */
#include "gpu.h"
#include <pthread.h>

static xqkv_projection *projection;

static void begin_capture(void) { GPU(cuStreamBeginCapture_v2(gpu_stream, CAPTURE_GLOBAL)); }

static int capture_state(void) {
    int state = -1;
    GPU(cuStreamIsCapturing(gpu_stream, &state));
    return state;
}

/* Ends the capture, which must be good. */
static void *end_capture(void) {
    void *graph = NULL, *executable = NULL;
    GPU(cuStreamEndCapture(gpu_stream, &graph));
    GPU(cuGraphInstantiateWithFlags(&executable, graph, 0));
    GPU(cuGraphDestroy(graph));
    return executable;
}

/* Launches a graph of the call with the rows of the fixture. */
static void replay(void *executable, const xqkv_forward *call) {
    poison_device();
    GPU(cuGraphLaunch(executable, gpu_stream));
    CHECK(has_call(fetched(gpu_stream), call, 0));
}

static void a_captured_call_is_replayed_on_what_the_rows_are_then(void) {
    float zeros[MOST_ROWS * DECODER_WIDTH] = {0};
    xqkv_forward call = gpu_call(9, 5);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan;
    begin_capture();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    void *executable = end_capture();
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    replay(executable, &call);
    write_device(gpu_rows[QUERY], zeros, sizeof zeros);
    GPU(cuGraphLaunch(executable, gpu_stream));
    const outputs *out = fetched(gpu_stream);
    for (int at = 0; at < 9 * 12; at++) CHECK(out->parts[QUERY][at] == test_bias(QUERY, at % 12));
    write_device(gpu_rows[QUERY], test_rows(QUERY), sizeof zeros);
    replay(executable, &call);
    GPU(cuGraphExecDestroy(executable));
}

static void an_unplanned_call_is_refused_and_the_capture_goes_on(void) {
    xqkv_forward call = gpu_call(7, 0), unplanned = gpu_call(6, 0);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan;
    begin_capture();
    CHECK_REFUSED(XQKV_STATUS_PLAN_NEEDED, "capturing", xqkv_projection_forward(projection, &unplanned, NULL, &error));
    CHECK(capture_state() == 1);
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    void *executable = end_capture();
    replay(executable, &call);
    GPU(cuGraphExecDestroy(executable));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void a_call_that_ran_before_is_captured_without_a_plan(void) {
    xqkv_forward call = gpu_call(11, 0);
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    GPU(cuStreamSynchronize(gpu_stream));
    begin_capture();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    void *executable = end_capture();
    replay(executable, &call);
    GPU(cuGraphExecDestroy(executable));
}

static void *commit_beside(void *unused) {
    load(projection, 1);
    return unused;
}

static void a_commit_does_not_break_a_capture(int in_another_thread) {
    pthread_t thread;
    xqkv_forward call = gpu_call(7, 3);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan;
    begin_capture();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    if (in_another_thread) CHECK(pthread_create(&thread, NULL, commit_beside, NULL) == 0 && pthread_join(thread, NULL) == 0);
    else commit_beside(NULL);
    CHECK(capture_state() == 1);
    void *executable = end_capture();
    /* The graph has the weights of its capture, which stay until they are reclaimed. */
    replay(executable, &call);
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(has_call(fetched(gpu_stream), &call, 1));
    GPU(cuGraphExecDestroy(executable));
    load(projection, 0);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void events_fork_and_join_a_capture(void) {
    void *side = new_stream(), *forked = new_event(), *joined = new_event();
    xqkv_forward call = gpu_call(7, 3);
    xqkv_plan *plan = new_plan(projection, &call);
    call.plan = plan, call.stream = side, call.wait_event = forked, call.signal_event = joined;
    begin_capture();
    GPU(cuEventRecord(forked, gpu_stream));
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    GPU(cuStreamWaitEvent(gpu_stream, joined, 0));
    void *executable = end_capture();
    replay(executable, &call);
    GPU(cuGraphExecDestroy(executable));
    GPU(cuEventDestroy_v2(forked));
    GPU(cuEventDestroy_v2(joined));
    GPU(cuStreamDestroy_v2(side));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

int main(void) {
    gpu_begin();
    projection = ready_projection(1);
    a_captured_call_is_replayed_on_what_the_rows_are_then();
    an_unplanned_call_is_refused_and_the_capture_goes_on();
    a_call_that_ran_before_is_captured_without_a_plan();
    a_commit_does_not_break_a_capture(0);
    a_commit_does_not_break_a_capture(1);
    events_fork_and_join_a_capture();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return gpu_done();
}
