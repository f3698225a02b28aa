/* A driver and a cuBLASLt that do nothing, so that what is measured over them is the library's own time. Every
   function answers success; the few whose answers are needed give plausible ones. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NOTHING(name) \
    int name(void) { return 0; }

NOTHING(cuInit)
NOTHING(cuDevicePrimaryCtxRelease_v2)
NOTHING(cuCtxPushCurrent_v2)
NOTHING(cuCtxPopCurrent_v2)
NOTHING(cuMemcpyHtoDAsync_v2)
NOTHING(cuMemcpyDtoHAsync_v2)
NOTHING(cuMemcpyDtoDAsync_v2)
NOTHING(cuStreamDestroy_v2)
NOTHING(cuStreamSynchronize)
NOTHING(cuStreamQuery)
NOTHING(cuStreamWaitEvent)
NOTHING(cuThreadExchangeStreamCaptureMode)
NOTHING(cuEventCreate)
NOTHING(cuEventDestroy_v2)
NOTHING(cuEventRecord)
NOTHING(cuEventQuery)
NOTHING(cuEventElapsedTime)
NOTHING(cuModuleLoadData)
NOTHING(cuModuleUnload)
NOTHING(cuModuleGetFunction)
NOTHING(cuLaunchKernel)
NOTHING(cuGetErrorName)
NOTHING(cuGetErrorString)
NOTHING(cublasLtDestroy)
NOTHING(cublasLtMatmul)
NOTHING(cublasLtMatmulAlgoCheck)

static int one;

static int number(int *answer, int value) { return *answer = value, 0; }
int cuDriverGetVersion(int *version) { return number(version, 13000); }
int cuDeviceGetCount(int *count) { return number(count, 1); }
int cuDeviceGetAttribute(int *value, int attribute, int device) { return (void)attribute, number(value, 9 + device); }
int cuCtxGetDevice(int *device) { return number(device, 0); }
int cuStreamIsCapturing(void *stream, int *status) { return (void)stream, number(status, 0); }

static int handle(void **answer) { return *answer = &one, 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return (void)device, handle(context); }
int cuStreamCreate(void **stream, unsigned flags) { return (void)flags, handle(stream); }
int cuStreamGetCtx(void *stream, void **context) { return (void)stream, handle(context); }
int cublasLtCreate(void **made) { return handle(made); }

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    *address = (uint64_t)(uintptr_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *address == 0 ? 2 : 0;
}
int cuMemFree_v2(uint64_t address) { return free((void *)(uintptr_t)address), 0; }
int cuPointerGetAttribute(void *answer, int attribute, uint64_t address) {
    (void)address;
    return number(answer, attribute == 2 ? 1 : 0); /* pinned host memory, which both sides may use */
}

size_t cublasLtGetVersion(void) { return 130401; }
const char *cublasLtGetStatusName(int status) { return (void)status, "nothing"; }

/* The descriptors' own cost is the vendor's; it is stood in for by a store. */
static int clear(void *descriptor, size_t bytes) { return memset(descriptor, 0, bytes), 0; }
int cublasLtMatmulDescInit_internal(void *made, size_t bytes) { return clear(made, bytes); }
int cublasLtMatrixLayoutInit_internal(void *made, size_t bytes) { return clear(made, bytes); }
int cublasLtMatmulPreferenceInit_internal(void *made, size_t bytes) { return clear(made, bytes); }

static int set(void *descriptor, int attribute, const void *value, size_t bytes) {
    return memcpy((char *)descriptor + attribute % 24 * 8, value, bytes), 0;
}
int cublasLtMatmulDescSetAttribute(void *d, int a, const void *v, size_t n) { return set(d, a, v, n); }
int cublasLtMatrixLayoutSetAttribute(void *d, int a, const void *v, size_t n) { return set(d, a, v, n); }
int cublasLtMatmulPreferenceSetAttribute(void *d, int a, const void *v, size_t n) { return set(d, a, v, n); }

int cublasLtMatmulAlgoGetHeuristic(void *h, void *o, void *a, void *b, void *c, void *d, void *p, int asked, void *found,
                                   int *count) {
    (void)h, (void)o, (void)a, (void)b, (void)c, (void)d, (void)p, (void)asked;
    memset(found, 0, 96);
    return number(count, 1);
}
