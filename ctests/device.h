/* The device's memory behind the suite's own: with XQKV_TEST_BACKEND=cuda every static object of a program has a copy on
   the device for the length of one forward. So the same tests run on both backends, and on a real GPU as on a simulated
   one: the driver is the one that XQKV_CUDA_LIBRARY names, or the system's. */
#ifndef DEVICE_H
#define DEVICE_H

#include "check.h"
#include <dlfcn.h>

extern char __data_start, _end;

static inline int on_cuda(void) {
    const char *backend = getenv("XQKV_TEST_BACKEND");
    return backend != NULL && strcmp(backend, "cuda") == 0;
}

static inline void *driver_function(const char *name) {
    static void *library;
    const char *path = getenv("XQKV_CUDA_LIBRARY");
    if (library == NULL) library = dlopen(path != NULL ? path : "libcuda.so.1", RTLD_NOW);
    void *function = library == NULL ? NULL : dlsym(library, name);
    if (function != NULL) return function;
    printf("the CUDA driver has no %s\n", name);
    exit(EXIT_FAILURE);
}

/* Calls a function of the driver's, which must succeed. */
#define DRIVER(name, types, arguments)                                                                     \
    do {                                                                                                   \
        int (*function) types;                                                                             \
        *(void **)&function = driver_function(name);                                                       \
        int driver_status = function arguments;                                                            \
        if (driver_status != 0) snprintf(check_detail, sizeof check_detail, "answered %d", driver_status); \
        check(driver_status == 0, name, __FILE__, __LINE__);                                               \
    } while (0)

/* The copy of this program's static objects. */
typedef struct {
    void *context;
    uint64_t device;
    char *snapshot;
    size_t bytes;
} mirror;

static inline mirror mirror_open(void) {
    mirror made = {NULL, 0, NULL, (size_t)(&_end - &__data_start)};
    DRIVER("cuInit", (unsigned), (0));
    DRIVER("cuDevicePrimaryCtxRetain", (void **, int), (&made.context, 0));
    DRIVER("cuCtxPushCurrent_v2", (void *), (made.context));
    DRIVER("cuMemAlloc_v2", (uint64_t *, size_t), (&made.device, made.bytes + 256));
    made.snapshot = malloc(made.bytes);
    memcpy(made.snapshot, &__data_start, made.bytes);
    /* As far from a multiple of 256 as the objects are, so that addresses keep their alignment. */
    uint64_t first = made.device + ((uintptr_t)&__data_start & 255);
    DRIVER("cuMemcpyHtoD_v2", (uint64_t, const void *, size_t), (first, made.snapshot, made.bytes));
    DRIVER("cuCtxSynchronize", (void), ());
    return made;
}

/* The place of an object's copy; other addresses stay as they are, since they are there to be refused. */
static inline void *mirrored(const mirror *copy, const void *object) {
    uintptr_t address = (uintptr_t)object, first = (uintptr_t)&__data_start;
    if (address < first || address >= first + copy->bytes) return (void *)address;
    return (void *)(uintptr_t)(copy->device + (first & 255) + (address - first));
}

/* Brings back the bytes that the device changed, and only those: other threads and callbacks change objects as well. */
static inline void mirror_close(mirror *copy) {
    char *changed = malloc(copy->bytes);
    uint64_t first = copy->device + ((uintptr_t)&__data_start & 255);
    DRIVER("cuCtxSynchronize", (void), ());
    DRIVER("cuMemcpyDtoH_v2", (void *, uint64_t, size_t), (changed, first, copy->bytes));
    for (size_t at = 0; at < copy->bytes; at++)
        if (changed[at] != copy->snapshot[at]) (&__data_start)[at] = changed[at];
    DRIVER("cuMemFree_v2", (uint64_t), (copy->device));
    DRIVER("cuCtxPopCurrent_v2", (void **), (&copy->context));
    DRIVER("cuDevicePrimaryCtxRelease_v2", (int), (0));
    free(changed);
    free(copy->snapshot);
}

enum { MOST_BASES = 64 };

/* A view whose memory is static objects; `bases` takes the mirrored pointers of layers. */
static inline void mirror_view(const mirror *copy, xqkv_view *view, int64_t layers, void **bases) {
    view->data = mirrored(copy, view->data);
    view->slots = mirrored(copy, view->slots);
    if (view->layer_data == NULL || ((uintptr_t)view->layer_data & 7) != 0 || layers > MOST_BASES) return;
    for (int64_t layer = 0; layer < (layers > 0 ? layers : 1); layer++)
        bases[layer] = mirrored(copy, view->layer_data[layer]);
    view->layer_data = bases;
}

/* A forward whose memory is the program's static objects, on whichever backend is tested. */
static inline xqkv_status run_forward(const xqkv_projection *projection, const xqkv_forward *call, xqkv_stats *stats,
                                      xqkv_error *report) {
    if (!on_cuda() || call == NULL) return xqkv_projection_forward(projection, call, stats, report);
    mirror copy = mirror_open();
    void *bases[3][MOST_BASES];
    xqkv_forward moved = *call;
    moved.decoder.data = mirrored(&copy, call->decoder.data);
    moved.decoder.row_list = mirrored(&copy, call->decoder.row_list);
    moved.encoder.data = mirrored(&copy, call->encoder.data);
    moved.encoder.row_list = mirrored(&copy, call->encoder.row_list);
    moved.workspace = mirrored(&copy, call->workspace);
    mirror_view(&copy, &moved.query, call->layer_count, bases[0]);
    mirror_view(&copy, &moved.key, call->layer_count, bases[1]);
    mirror_view(&copy, &moved.value, call->layer_count, bases[2]);
    xqkv_status status = xqkv_projection_forward(projection, &moved, stats, report);
    mirror_close(&copy);
    return status;
}

#endif
