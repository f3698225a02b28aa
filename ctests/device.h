/* Runs a call of the C suite on a CUDA device as well: what its pointers mean in the host's memory is mirrored to the
   device before the call and back behind it. The driver is the one that XQKV_CUDA_LIBRARY names. */
#ifndef DEVICE_H
#define DEVICE_H

#include "check.h"
#include <dlfcn.h>

/* Whether the program is to test the CUDA backend. */
static inline int on_cuda(void) {
    const char *backend = getenv("XQKV_TEST_BACKEND");
    return backend != NULL && strcmp(backend, "cuda") == 0;
}

typedef unsigned long long device_address;

/* The driver's functions that a mirror takes. */
typedef struct {
    int (*init)(unsigned flags);
    int (*retain)(void **context, int device);
    int (*release)(int device);
    int (*push)(void *context);
    int (*pop)(void **context);
    int (*synchronize)(void);
    int (*allocate)(device_address *address, size_t bytes);
    int (*free)(device_address address);
    int (*upload)(device_address address, const void *host, size_t bytes);
    int (*download)(void *host, device_address address, size_t bytes);
} device_driver;

static inline void device_find(void *library, const char *name, void *function) {
    void *found = dlsym(library, name);
    if (!check(found != NULL, name, __FILE__, __LINE__)) exit(EXIT_FAILURE);
    memcpy(function, &found, sizeof found);
}

static inline device_driver device_open(void) {
    device_driver driver;
    const char *name = getenv("XQKV_CUDA_LIBRARY");
    void *library = dlopen(name != NULL ? name : "libcuda.so.1", RTLD_NOW);
    if (!check(library != NULL, "the CUDA driver opens", __FILE__, __LINE__)) exit(EXIT_FAILURE);
    device_find(library, "cuInit", &driver.init);
    device_find(library, "cuDevicePrimaryCtxRetain", &driver.retain);
    device_find(library, "cuDevicePrimaryCtxRelease_v2", &driver.release);
    device_find(library, "cuCtxPushCurrent_v2", &driver.push);
    device_find(library, "cuCtxPopCurrent_v2", &driver.pop);
    device_find(library, "cuCtxSynchronize", &driver.synchronize);
    device_find(library, "cuMemAlloc_v2", &driver.allocate);
    device_find(library, "cuMemFree_v2", &driver.free);
    device_find(library, "cuMemcpyHtoD_v2", &driver.upload);
    device_find(library, "cuMemcpyDtoH_v2", &driver.download);
    return driver;
}

/* Memory of the host that calls of this thread may point into, and its mirror while a call runs. */
typedef struct {
    char *base;
    size_t bytes;
    device_address mirror;
} device_range;

enum { MOST_RANGES = 16 };

static _Thread_local device_range device_ranges[MOST_RANGES];
static _Thread_local int device_range_count;

/* Registers memory; what was registered there before is gone, such as an array of a function that has returned. */
static inline void mirrored(const void *base, size_t bytes) {
    char *begin = (char *)base;
    int kept = 0;
    for (int at = 0; at < device_range_count; at++) {
        device_range range = device_ranges[at];
        if (range.base + range.bytes <= begin || begin + bytes <= range.base) device_ranges[kept++] = range;
    }
    if (kept == MOST_RANGES) memmove(device_ranges, device_ranges + 1, sizeof *device_ranges * (size_t)--kept);
    device_ranges[kept] = (device_range){begin, bytes, 0};
    device_range_count = kept + 1;
}

static inline void device_do(int status, const char *what) {
    if (!check(status == 0, what, __FILE__, __LINE__)) exit(EXIT_FAILURE);
}

/* The matching place on the device; a pointer into no registered memory stays as it is. */
static inline void *device_place(const device_driver *driver, const void *host) {
    for (int at = 0; at < device_range_count; at++) {
        device_range *range = &device_ranges[at];
        size_t offset = (size_t)((uintptr_t)host - (uintptr_t)range->base);
        if (host == NULL || offset >= range->bytes) continue;
        if (range->mirror == 0) {
            device_do(driver->allocate(&range->mirror, range->bytes), "cuMemAlloc");
            device_do(driver->upload(range->mirror, range->base, range->bytes), "cuMemcpyHtoD");
        }
        return (void *)(uintptr_t)(range->mirror + offset); /* NOLINT: a device's address is a number here */
    }
    return (void *)host;
}

/* Brings back what the call left, whether it ran or was refused. */
static inline void device_return(const device_driver *driver) {
    device_do(driver->synchronize(), "cuCtxSynchronize");
    for (int at = 0; at < device_range_count; at++) {
        device_range *range = &device_ranges[at];
        if (range->mirror == 0) continue;
        device_do(driver->download(range->base, range->mirror, range->bytes), "cuMemcpyDtoH");
        device_do(driver->free(range->mirror), "cuMemFree");
        range->mirror = 0;
    }
}

static inline xqkv_status device_forward(const xqkv_projection *projection, xqkv_forward call, xqkv_stats *stats,
                                         xqkv_error *failure) {
    const device_driver driver = device_open();
    const void **inputs[] = {&call.decoder.data, &call.encoder.data};
    void **outputs[] = {&call.query.data, &call.key.data, &call.value.data, &call.workspace};
    void *context = NULL;
    device_do(driver.init(0), "cuInit");
    device_do(driver.retain(&context, 0), "cuDevicePrimaryCtxRetain");
    device_do(driver.push(context), "cuCtxPushCurrent");
    for (int at = 0; at < 2; at++) *inputs[at] = device_place(&driver, *inputs[at]);
    for (int at = 0; at < 4; at++) *outputs[at] = device_place(&driver, *outputs[at]);
    xqkv_status status = xqkv_projection_forward(projection, &call, stats, failure);
    device_return(&driver);
    device_do(driver.pop(&context), "cuCtxPopCurrent");
    device_do(driver.release(0), "cuDevicePrimaryCtxRelease");
    return status;
}

/* xqkv_projection_forward, on whichever backend the program tests. */
static inline xqkv_status test_forward(const xqkv_projection *projection, const xqkv_forward *call, xqkv_stats *stats,
                                       xqkv_error *failure) {
    if (!on_cuda() || call == NULL) return xqkv_projection_forward(projection, call, stats, failure);
    return device_forward(projection, *call, stats, failure);
}

#endif
