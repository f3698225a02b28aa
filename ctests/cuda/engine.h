/* What an engine has that embeds the library: a context, device memory, streams. On the simulated GPU it can also ask what
   was called; on a real one those checks are left out. */
#ifndef ENGINE_H
#define ENGINE_H

#include "../fixture.h"

static void *engine_context;

static inline void engine_open(void) {
    DRIVER("cuInit", (unsigned), (0));
    DRIVER("cuDevicePrimaryCtxRetain", (void **, int), (&engine_context, 0));
    DRIVER("cuCtxSetCurrent", (void *), (engine_context));
}

static inline int engine_close(void) {
    DRIVER("cuCtxSetCurrent", (void *), (NULL));
    DRIVER("cuDevicePrimaryCtxRelease_v2", (int), (0));
    return check_done();
}

static inline void *device_memory(size_t bytes) {
    uint64_t address = 0;
    DRIVER("cuMemAlloc_v2", (uint64_t *, size_t), (&address, bytes));
    return (void *)(uintptr_t)address;
}

static inline void device_free(void *memory) { DRIVER("cuMemFree_v2", (uint64_t), ((uint64_t)(uintptr_t)memory)); }

static inline void synchronize(void) { DRIVER("cuCtxSynchronize", (void), ()); }

static inline void upload(void *target, const void *source, size_t bytes) {
    DRIVER("cuMemcpyHtoD_v2", (uint64_t, const void *, size_t), ((uint64_t)(uintptr_t)target, source, bytes));
    synchronize();
}

static inline void download(void *target, const void *source, size_t bytes) {
    synchronize();
    DRIVER("cuMemcpyDtoH_v2", (void *, uint64_t, size_t), (target, (uint64_t)(uintptr_t)source, bytes));
}

/* A copy in device memory. */
static inline void *on_device(const void *source, size_t bytes) {
    void *memory = device_memory(bytes);
    upload(memory, source, bytes);
    return memory;
}

static inline void *new_stream(void) {
    void *stream = NULL;
    DRIVER("cuStreamCreate", (void **, unsigned), (&stream, 1));
    return stream;
}

static inline void *new_event(void) {
    void *event = NULL;
    DRIVER("cuEventCreate", (void **, unsigned), (&event, 2));
    return event;
}

/* A call of decoder and encoder rows in device memory, with poisoned outputs there. */
typedef struct {
    xqkv_forward call;
    void *decoder, *encoder, *out;
} device_call;

static inline device_call new_call(int decoder_rows, int encoder_rows) {
    static outputs poisoned;
    poison(&poisoned);
    device_call made = {.call = test_call(&poisoned, decoder_rows, encoder_rows)};
    made.decoder = on_device(test_rows(QUERY), sizeof(float) * MOST_ROWS * DECODER_WIDTH);
    made.encoder = on_device(test_rows(KEY), sizeof(float) * MOST_ROWS * ENCODER_WIDTH);
    made.out = on_device(&poisoned, sizeof poisoned);
    xqkv_view *views[] = {&made.call.query, &made.call.key, &made.call.value};
    for (int part = QUERY; part <= VALUE; part++)
        views[part]->data = (char *)made.out + sizeof poisoned.parts[0] * (size_t)part;
    if (decoder_rows > 0) made.call.decoder.data = made.decoder;
    if (encoder_rows > 0) made.call.encoder.data = made.encoder;
    return made;
}

static inline void free_call(device_call *made) {
    synchronize();
    device_free(made->decoder), device_free(made->encoder), device_free(made->out);
}

/* Whether the device has these results, and poison behind them; poisons them again. */
static inline int has_results(const device_call *made, int decoder_rows, int encoder_rows, int layer, int generation) {
    static outputs found, poisoned;
    download(&found, made->out, sizeof found);
    poison(&poisoned);
    upload(made->out, &poisoned, sizeof poisoned);
    return has_rows(&found, QUERY, layer, decoder_rows, generation) && has_rows(&found, KEY, layer, encoder_rows, generation) &&
           has_rows(&found, VALUE, layer, encoder_rows, generation);
}

/* The simulator's functions, or NULL on a real GPU. */
static inline void *simulated(const char *name) {
    driver_function("cuInit");
    void *library = dlopen(getenv("XQKV_CUDA_LIBRARY"), RTLD_NOW);
    return library == NULL ? NULL : dlsym(library, name);
}

static inline int64_t simulated_calls(const char *function) {
    int64_t (*calls)(const char *);
    *(void **)&calls = simulated("gpusim_calls");
    return calls == NULL ? -1 : calls(function);
}

static inline int64_t simulated_violations(void) {
    int64_t (*violations)(void);
    *(void **)&violations = simulated("gpusim_violations");
    return violations == NULL ? 0 : violations();
}

#endif
