/* A program of its own context on the simulated GPU: rows and outputs of the fixture in its memory, a stream, and what it
   must leave behind. Outputs are addressed through the fixture's struct, and never read there. */
#ifndef GPU_H
#define GPU_H

#include "../fixture.h"
#include "../gpusim/gpusim.h"

typedef uint64_t device_pointer;

int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuDevicePrimaryCtxRelease_v2(int device);
int cuCtxCreate_v2(void **context, unsigned flags, int device);
int cuCtxDestroy_v2(void *context);
int cuCtxGetCurrent(void **context);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(device_pointer *address, size_t bytes);
int cuMemFree_v2(device_pointer address);
int cuMemcpyHtoD_v2(device_pointer target, const void *source, size_t bytes);
int cuMemcpyDtoH_v2(void *target, device_pointer source, size_t bytes);
int cuMemcpyDtoDAsync_v2(device_pointer target, device_pointer source, size_t bytes, void *stream);
int cuMemsetD8Async(device_pointer target, unsigned char value, size_t bytes, void *stream);
int cuStreamCreate(void **stream, unsigned flags);
int cuStreamDestroy_v2(void *stream);
int cuStreamSynchronize(void *stream);
int cuStreamWaitEvent(void *stream, void *event, unsigned flags);
int cuStreamBeginCapture_v2(void *stream, int mode);
int cuStreamEndCapture(void *stream, void **graph);
int cuStreamIsCapturing(void *stream, int *status);
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags);
int cuGraphLaunch(void *executable, void *stream);
int cuGraphExecDestroy(void *executable);
int cuGraphDestroy(void *graph);
int cuEventCreate(void **event, unsigned flags);
int cuEventDestroy_v2(void *event);
int cuEventRecord(void *event, void *stream);
int cublasLtCreate(void **handle);
int cublasLtDestroy(void *handle);

enum { CAPTURE_GLOBAL = 0, STREAM_NON_BLOCKING = 1 };

/* A call of the driver's or cuBLASLt's that must answer 0. */
#define GPU(call) check((call) == 0, #call, __FILE__, __LINE__)

static void *gpu_context, *gpu_stream;
static device_pointer gpu_rows[2], gpu_outputs;

static inline void *new_stream(void) {
    void *stream = NULL;
    GPU(cuStreamCreate(&stream, STREAM_NON_BLOCKING));
    return stream;
}

static inline void *new_event(void) {
    void *event = NULL;
    GPU(cuEventCreate(&event, 0));
    return event;
}

/* Writes the device's memory; a copy from pageable memory may outlast its call, and our streams wait for nobody. */
static inline void write_device(device_pointer target, const void *source, size_t bytes) {
    GPU(cuMemcpyHtoD_v2(target, source, bytes));
    GPU(cuStreamSynchronize(NULL));
}

static inline device_pointer upload(const void *bytes, size_t count) {
    device_pointer address = 0;
    GPU(cuMemAlloc_v2(&address, count));
    write_device(address, bytes, count);
    return address;
}

static inline void gpu_begin(void) {
    GPU(cuInit(0));
    GPU(cuDevicePrimaryCtxRetain(&gpu_context, 0));
    GPU(cuCtxSetCurrent(gpu_context));
    gpu_stream = new_stream();
    for (int side = QUERY; side <= KEY; side++)
        gpu_rows[side] = upload(test_rows(side), sizeof(float) * MOST_ROWS * (size_t)test_inputs[side]);
    GPU(cuMemAlloc_v2(&gpu_outputs, sizeof(outputs)));
}

/* Every program ends with this. */
static inline int gpu_done(void) {
    static const char *const kinds[] = {"allocations", "streams", "events", "contexts", "graphs", "modules", "cublaslt",
                                        "descriptors"};
    GPU(cuMemFree_v2(gpu_rows[QUERY]));
    GPU(cuMemFree_v2(gpu_rows[KEY]));
    GPU(cuMemFree_v2(gpu_outputs));
    GPU(cuStreamDestroy_v2(gpu_stream));
    GPU(cuCtxSetCurrent(NULL));
    GPU(cuDevicePrimaryCtxRelease_v2(0));
    for (int kind = 0; kind < (int)(sizeof kinds / sizeof *kinds); kind++) {
        snprintf(check_detail, sizeof check_detail, "%d %s", (int)gpusim_live(kinds[kind]), kinds[kind]);
        CHECK(gpusim_live(kinds[kind]) == 0);
    }
    for (uint64_t at = 0; at < gpusim_violations(); at++) printf("%s\n", gpusim_violation(at));
    CHECK(gpusim_violations() == 0);
    return check_done();
}

/* A call on the device's memory and our stream. */
static inline xqkv_forward gpu_call(int decoder_rows, int encoder_rows) {
    xqkv_forward call = test_call((outputs *)(uintptr_t)gpu_outputs, decoder_rows, encoder_rows);
    if (decoder_rows > 0) call.decoder.data = (void *)(uintptr_t)gpu_rows[QUERY];
    if (encoder_rows > 0) call.encoder.data = (void *)(uintptr_t)gpu_rows[KEY];
    call.stream = gpu_stream;
    return call;
}

/* Outputs are NaN until a call writes them. */
static inline void poison_device(void) {
    static outputs poisoned;
    poison(&poisoned);
    write_device(gpu_outputs, &poisoned, sizeof poisoned);
}

/* What is in the outputs when the stream is done. */
static inline const outputs *fetched(void *stream) {
    static outputs out;
    GPU(cuStreamSynchronize(stream));
    GPU(cuMemcpyDtoH_v2(&out, gpu_outputs, sizeof out));
    return &out;
}

/* Whether all parts that a packed call of one layer asks for are right. */
static inline int has_call(const outputs *out, const xqkv_forward *call, int generation) {
    int holds = 1, layer = (int)call->layer;
    if (call->decoder.data != NULL) holds &= has_rows(out, QUERY, layer, (int)call->decoder.rows, generation);
    for (int part = KEY; part <= VALUE && call->encoder.data != NULL; part++)
        holds &= has_rows(out, part, layer, (int)call->encoder.rows, generation);
    return holds;
}

static inline xqkv_context_options gpu_options(void) {
    xqkv_context_options options;
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.backend = XQKV_BACKEND_CUDA;
    return options;
}

static inline xqkv_context *new_context(const xqkv_context_options *options) {
    xqkv_context *context = NULL;
    CHECK_OK(xqkv_context_create(options, &context, &error));
    return context;
}

static inline xqkv_plan *new_plan(const xqkv_projection *projection, const xqkv_forward *example) {
    xqkv_plan *plan = NULL;
    CHECK_OK(xqkv_plan_create(projection, example, NULL, &plan, &error));
    return plan;
}

#endif
