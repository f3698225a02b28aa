/* Events, streams and contexts: work is ordered as it was asked, and the caller's context stays current. */
#include "gpu.h"

static xqkv_projection *projection;

/* Rows that another stream writes, which is what an engine's encoder does, and a call behind its event. */
static void produce_and_project(void *producer, void *event, int waits) {
    xqkv_forward call = gpu_call(0, 4);
    xqkv_plan *plan = new_plan(projection, &call);
    device_pointer source = upload(test_rows(KEY), sizeof(float) * 4 * ENCODER_WIDTH);
    call.plan = plan, call.wait_event = waits ? event : NULL;
    poison_device();
    GPU(cuMemsetD8Async(gpu_rows[KEY], 0, sizeof(float) * 4 * ENCODER_WIDTH, producer));
    GPU(cuMemcpyDtoDAsync_v2(gpu_rows[KEY], source, sizeof(float) * 4 * ENCODER_WIDTH, producer));
    GPU(cuEventRecord(event, producer));
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    const outputs *out = fetched(gpu_stream);
    if (waits && gpusim_violations() == 0) CHECK(has_call(out, &call, 0));
    GPU(cuStreamSynchronize(producer));
    GPU(cuMemFree_v2(source));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static int races_found(void) {
    int found = gpusim_violations() > 0 && strstr(gpusim_violation(0), "race") != NULL;
    gpusim_clear_violations();
    return found;
}

static void a_call_waits_for_the_event_that_it_is_given(void) {
    void *producer = new_stream(), *event = new_event();
    produce_and_project(producer, event, 1);
    CHECK(gpusim_violations() == 0);
    produce_and_project(producer, event, 0);
    CHECK(races_found());
    gpusim_drop_event_waits(1);
    produce_and_project(producer, event, 1);
    CHECK(races_found());
    gpusim_drop_event_waits(0);
    GPU(cuEventDestroy_v2(event));
    GPU(cuStreamDestroy_v2(producer));
}

static void a_consumer_behind_the_signalled_event_reads_results(void) {
    void *consumer = new_stream(), *event = new_event();
    device_pointer copy = 0;
    xqkv_forward call = gpu_call(3, 0);
    static float row[12];
    call.signal_event = event;
    GPU(cuMemAlloc_v2(&copy, sizeof row));
    poison_device();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    GPU(cuStreamWaitEvent(consumer, event, 0));
    GPU(cuMemcpyDtoDAsync_v2(copy, gpu_outputs, sizeof row, consumer));
    GPU(cuStreamSynchronize(consumer));
    GPU(cuMemcpyDtoH_v2(row, copy, sizeof row));
    for (int output = 0; output < 12; output++) CHECK(row[output] == test_result(QUERY, 0, 0, output, 0));
    GPU(cuMemFree_v2(copy));
    GPU(cuStreamSynchronize(gpu_stream));
    GPU(cuEventDestroy_v2(event));
    GPU(cuStreamDestroy_v2(consumer));
}

static void the_default_stream_is_a_stream(void) {
    xqkv_forward call = gpu_call(3, 4);
    call.stream = NULL;
    poison_device();
    CHECK_OK(xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(has_call(fetched(NULL), &call, 0));
}

static void a_stream_of_another_context_is_refused(void) {
    void *other = NULL, *popped = NULL;
    GPU(cuDevicePrimaryCtxRetain(&other, 1));
    GPU(cuCtxSetCurrent(other));
    void *stream = new_stream();
    xqkv_forward call = gpu_call(3, 4);
    call.stream = stream;
    uint64_t before = gpusim_matmuls();
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "stream", xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(gpusim_matmuls() == before);
    GPU(cuStreamDestroy_v2(stream));
    GPU(cuCtxGetCurrent(&popped));
    CHECK(popped == other);
    GPU(cuCtxSetCurrent(gpu_context));
    GPU(cuDevicePrimaryCtxRelease_v2(1));
}

/* Every call that enters a context, with this one current. */
static void stays_current(void *current) {
    void *found = NULL;
    GPU(cuCtxSetCurrent(current));
    int depth = gpusim_context_depth();
    xqkv_projection *made = ready_projection(1);
    xqkv_forward call = gpu_call(3, 4), refused = call;
    refused.query.data = (void *)test_rows(QUERY);
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "query", xqkv_projection_forward(made, &refused, NULL, &error));
    xqkv_plan *plan = new_plan(made, &call);
    CHECK_OK(xqkv_projection_forward(made, &call, NULL, &error));
    call.plan = plan;
    CHECK_OK(xqkv_projection_forward(made, &call, NULL, &error));
    gpusim_fail("cublasLtMatmul", 1, 14);
    CHECK(xqkv_projection_forward(made, &call, NULL, &error) != XQKV_STATUS_OK);
    GPU(cuCtxGetCurrent(&found));
    CHECK(found == current && gpusim_context_depth() == depth);
    GPU(cuCtxSetCurrent(gpu_context));
    GPU(cuStreamSynchronize(gpu_stream));
    GPU(cuCtxSetCurrent(current));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    CHECK_OK(xqkv_projection_destroy(made, &error));
    GPU(cuCtxGetCurrent(&found));
    CHECK(found == current && gpusim_context_depth() == depth);
    GPU(cuCtxSetCurrent(gpu_context));
}

static void the_callers_context_stays_current(void) {
    void *other = NULL;
    GPU(cuDevicePrimaryCtxRetain(&other, 1));
    stays_current(gpu_context);
    stays_current(NULL);
    stays_current(other);
    GPU(cuDevicePrimaryCtxRelease_v2(1));
}

/* The engine's own context, stream and cuBLASLt handle, none of which is the library's to destroy. */
static void a_context_and_a_handle_can_be_lent(void) {
    void *lent = NULL, *handle = NULL;
    GPU(cuCtxCreate_v2(&lent, 0, 0));
    GPU(cublasLtCreate(&handle));
    void *stream = new_stream();
    device_pointer rows = upload(test_rows(QUERY), sizeof(float) * 3 * DECODER_WIDTH), target = 0;
    GPU(cuMemAlloc_v2(&target, sizeof(float) * 3 * 12));
    xqkv_context_options options = gpu_options();
    options.cuda_context = lent, options.cublaslt_handle = handle;
    gpusim_reset_calls();
    xqkv_context *context = new_context(&options);
    CHECK(gpusim_calls("cuDevicePrimaryCtxRetain") == 0 && gpusim_calls("cublasLtCreate") == 0);
    xqkv_projection *made = test_projection(context, NULL);
    load(made, 0);
    xqkv_forward call = gpu_call(3, 0);
    call.decoder.data = (void *)(uintptr_t)rows, call.query.data = (void *)(uintptr_t)target, call.stream = stream;
    CHECK_OK(xqkv_projection_forward(made, &call, NULL, &error));
    GPU(cuStreamSynchronize(stream));
    float first = 0;
    GPU(cuMemcpyDtoH_v2(&first, target, sizeof first));
    CHECK(first == test_result(QUERY, 0, 0, 0, 0));
    CHECK_OK(xqkv_projection_destroy(made, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK(gpusim_live("cublaslt") == 2 && gpusim_live("contexts") == 3);
    options.device = 1;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "device 0", xqkv_context_create(&options, &context, &error));
    GPU(cublasLtDestroy(handle));
    GPU(cuMemFree_v2(rows));
    GPU(cuMemFree_v2(target));
    GPU(cuStreamDestroy_v2(stream));
    GPU(cuCtxDestroy_v2(lent));
    GPU(cuCtxSetCurrent(gpu_context));
}

int main(void) {
    gpu_begin();
    projection = ready_projection(1);
    a_call_waits_for_the_event_that_it_is_given();
    a_consumer_behind_the_signalled_event_reads_results();
    the_default_stream_is_a_stream();
    a_stream_of_another_context_is_refused();
    the_callers_context_stays_current();
    a_context_and_a_handle_can_be_lent();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return gpu_done();
}
