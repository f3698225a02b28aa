/* Streams, events and contexts of the engine's: ordered as asked, and left as they were. */
#include "engine.h"

static xqkv_projection *projection;

static void copy_behind(void *stream, void *target, const void *source, size_t bytes) {
    DRIVER("cuMemcpyHtoDAsync_v2", (uint64_t, const void *, size_t, void *),
           ((uint64_t)(uintptr_t)target, source, bytes, stream));
}

/* Rows are written on one stream, projected on a second and their results read on a third. */
static void run_across_streams(void) {
    static outputs found;
    device_call made = new_call(3, 4);
    void *producer = new_stream(), *consumer = new_stream();
    made.call.stream = new_stream(), made.call.wait_event = new_event(), made.call.signal_event = new_event();
    copy_behind(producer, made.decoder, test_rows(QUERY), sizeof(float) * 3 * DECODER_WIDTH);
    copy_behind(producer, made.encoder, test_rows(KEY), sizeof(float) * 4 * ENCODER_WIDTH);
    DRIVER("cuEventRecord", (void *, void *), (made.call.wait_event, producer));
    CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
    DRIVER("cuStreamWaitEvent", (void *, void *, unsigned), (consumer, made.call.signal_event, 0));
    DRIVER("cuMemcpyDtoHAsync_v2", (void *, uint64_t, size_t, void *),
           (&found, (uint64_t)(uintptr_t)made.out, sizeof found, consumer));
    DRIVER("cuStreamSynchronize", (void *), (consumer));
    synchronize();
    if (simulated_violations() == 0) CHECK(has_rows(&found, QUERY, 0, 3, 0) && has_rows(&found, VALUE, 0, 4, 0));
    void *streams[] = {producer, consumer, made.call.stream}, *events[] = {made.call.wait_event, made.call.signal_event};
    for (int at = 0; at < 3; at++) DRIVER("cuStreamDestroy_v2", (void *), (streams[at]));
    for (int at = 0; at < 2; at++) DRIVER("cuEventDestroy_v2", (void *), (events[at]));
    free_call(&made);
}

/* The simulator ignores waits: it must see the races that the events are there to prevent. */
static void a_removed_event_is_a_race(void) {
    void (*drop)(int), (*clear)(void);
    *(void **)&drop = simulated("gpusim_drop_event_waits");
    *(void **)&clear = simulated("gpusim_clear_violations");
    if (drop == NULL) return;
    CHECK(simulated_violations() == 0);
    drop(1);
    run_across_streams();
    drop(0);
    CHECK(simulated_violations() > 0);
    clear();
}

static void *current(void) {
    void *context = NULL;
    DRIVER("cuCtxGetCurrent", (void **), (&context));
    return context;
}

static void the_current_context_is_as_it_was(void) {
    void *contexts[] = {NULL, NULL, engine_context};
    DRIVER("cuCtxCreate_v2", (void **, unsigned, int), (&contexts[1], 0, 0));
    /* Made current by that; without it one context is left, which NULL takes away. */
    DRIVER("cuCtxPopCurrent_v2", (void **), (&contexts[1]));
    for (int at = 0; at < 3; at++) {
        device_call made;
        DRIVER("cuCtxSetCurrent", (void *), (engine_context));
        made = new_call(3, 4);
        DRIVER("cuCtxSetCurrent", (void *), (contexts[at]));
        CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
        CHECK(current() == contexts[at]);
        load(projection, 0);
        CHECK(current() == contexts[at]);
        made.call.layer = LAYERS;
        CHECK(xqkv_projection_forward(projection, &made.call, NULL, &error) == XQKV_STATUS_LAYER_OUT_OF_RANGE);
        CHECK(current() == contexts[at]);
        DRIVER("cuCtxSetCurrent", (void *), (engine_context));
        free_call(&made);
    }
    DRIVER("cuCtxDestroy_v2", (void *), (contexts[1]));
    DRIVER("cuCtxSetCurrent", (void *), (engine_context));
}

static void a_stream_of_another_context_is_refused(void) {
    void *other = NULL;
    device_call made = new_call(3, 4);
    DRIVER("cuCtxCreate_v2", (void **, unsigned, int), (&other, 0, 0));
    made.call.stream = new_stream();
    DRIVER("cuCtxSetCurrent", (void *), (engine_context));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "stream is of CUDA context",
                  xqkv_projection_forward(projection, &made.call, NULL, &error));
    DRIVER("cuCtxDestroy_v2", (void *), (other));
    DRIVER("cuCtxSetCurrent", (void *), (engine_context));
    free_call(&made);
}

static void an_engine_s_own_context_is_used(void) {
    void *own = NULL;
    xqkv_context_options options;
    xqkv_context *context = NULL;
    DRIVER("cuCtxCreate_v2", (void **, unsigned, int), (&own, 0, 0));
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.backend = XQKV_BACKEND_CUDA, options.cuda_context = own;
    CHECK_OK(xqkv_context_create(&options, &context, &error));
    xqkv_projection *made = test_projection(context, NULL);
    load(made, 0);
    device_call call = new_call(3, 4);
    call.call.stream = new_stream();
    CHECK_OK(xqkv_projection_forward(made, &call.call, NULL, &error));
    CHECK(has_results(&call, 3, 4, 0, 0));
    DRIVER("cuStreamDestroy_v2", (void *), (call.call.stream));
    free_call(&call);
    CHECK_OK(xqkv_projection_destroy(made, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    DRIVER("cuCtxDestroy_v2", (void *), (own));
    DRIVER("cuCtxSetCurrent", (void *), (engine_context));
}

static void memory_that_the_device_cannot_use_is_refused(void) {
    static float host[MOST_ROWS * MOST_COLUMNS];
    device_call made = new_call(3, 4);
    xqkv_forward good = made.call;
    made.call.decoder.data = host;
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "decoder.data", xqkv_projection_forward(projection, &made.call, NULL, &error));
    made.call = good, made.call.value.data = host;
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "value.data", xqkv_projection_forward(projection, &made.call, NULL, &error));
    made.call = good, made.call.query.data = (char *)good.query.data + 2;
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "query.data", xqkv_projection_forward(projection, &made.call, NULL, &error));
    void *freed = device_memory(4096);
    device_free(freed);
    made.call = good, made.call.encoder.data = freed;
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "encoder.data", xqkv_projection_forward(projection, &made.call, NULL, &error));
    made.call = good;
    CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
    CHECK(has_results(&made, 3, 4, 0, 0));
    free_call(&made);
}

static void another_device_s_memory_is_refused(void) {
    void *second = NULL;
    int count = 0;
    DRIVER("cuDeviceGetCount", (int *), (&count));
    if (count < 2) return;
    device_call made = new_call(3, 4);
    DRIVER("cuDevicePrimaryCtxRetain", (void **, int), (&second, 1));
    DRIVER("cuCtxSetCurrent", (void *), (second));
    void *theirs = device_memory(4096);
    made.call.key.data = theirs;
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "device 1", xqkv_projection_forward(projection, &made.call, NULL, &error));
    device_free(theirs);
    DRIVER("cuDevicePrimaryCtxRelease_v2", (int), (1));
    DRIVER("cuCtxSetCurrent", (void *), (engine_context));
    free_call(&made);
}

int main(void) {
    engine_open();
    projection = ready_projection(1);
    run_across_streams();
    a_removed_event_is_a_race();
    the_current_context_is_as_it_was();
    a_stream_of_another_context_is_refused();
    an_engine_s_own_context_is_used();
    memory_that_the_device_cannot_use_is_refused();
    another_device_s_memory_is_refused();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return engine_close();
}
