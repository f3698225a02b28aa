// Calls the simulated driver, whose path is the argument, with the numbers and structs of NVIDIA's
// header, and checks that it understood them.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *library;
static int failures;

#define CALL(function) ((__typeof__(&function))find(#function))
#define EXPECT(expected, actual) expect(#actual, (long long)(expected), (long long)(actual))

static void *find(const char *name) {
    void *function = dlsym(library, name);
    if (!function) {
        fprintf(stderr, "the simulated driver has no %s\n", name);
        exit(2);
    }
    return function;
}

static void expect(const char *what, long long expected, long long actual) {
    if (expected != actual) {
        printf("%s: %lld, not %lld\n", what, actual, expected);
        failures++;
    }
}

#define ATTRIBUTE(name, value) {#name, CU_DEVICE_ATTRIBUTE_##name, value}

static const struct {
    const char *name;
    CUdevice_attribute number;
    int value;
} ATTRIBUTES[] = {
    ATTRIBUTE(MAX_THREADS_PER_BLOCK, 1024),
    ATTRIBUTE(WARP_SIZE, 32),
    ATTRIBUTE(MULTIPROCESSOR_COUNT, 132),
    ATTRIBUTE(INTEGRATED, 0),
    ATTRIBUTE(CONCURRENT_KERNELS, 1),
    ATTRIBUTE(UNIFIED_ADDRESSING, 1),
    ATTRIBUTE(COMPUTE_CAPABILITY_MAJOR, 9),
    ATTRIBUTE(COMPUTE_CAPABILITY_MINOR, 0),
    ATTRIBUTE(MANAGED_MEMORY, 1),
};

static void device_attributes(CUdevice device) {
    for (size_t index = 0; index < sizeof ATTRIBUTES / sizeof *ATTRIBUTES; index++) {
        int value = -1;
        CUdevice_attribute number = ATTRIBUTES[index].number;
        EXPECT(CUDA_SUCCESS, CALL(cuDeviceGetAttribute)(&value, number, device));
        expect(ATTRIBUTES[index].name, ATTRIBUTES[index].value, value);
    }
}

static void pointer_attributes(CUcontext context, CUdevice device, CUdeviceptr address) {
    CUcontext its_context = NULL;
    CUmemorytype type = 0;
    CUdeviceptr its_address = 0;
    int ordinal = -1;
    EXPECT(CUDA_SUCCESS,
           CALL(cuPointerGetAttribute)(&its_context, CU_POINTER_ATTRIBUTE_CONTEXT, address));
    EXPECT(1, its_context == context);
    EXPECT(CUDA_SUCCESS,
           CALL(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address));
    EXPECT(CU_MEMORYTYPE_DEVICE, type);
    EXPECT(CUDA_SUCCESS, CALL(cuPointerGetAttribute)(
                             &its_address, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address));
    EXPECT(address, its_address);
    EXPECT(CUDA_SUCCESS,
           CALL(cuPointerGetAttribute)(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address));
    EXPECT(device, ordinal);
}

// Two rows of 4 bytes go into memory with a pitch of 64, and come back.
static void copies_of_rows(CUdeviceptr address) {
    char rows[] = "abcd....efgh....", back[sizeof rows] = "................";
    CUDA_MEMCPY2D copy = {0};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = rows;
    copy.srcPitch = 8;
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = address;
    copy.dstPitch = 64;
    copy.WidthInBytes = 4;
    copy.Height = 2;
    EXPECT(CUDA_SUCCESS, CALL(cuMemcpy2D_v2)(&copy));
    EXPECT(CUDA_SUCCESS, CALL(cuMemcpyDtoH_v2)(back, address, 4));
    EXPECT(CUDA_SUCCESS, CALL(cuMemcpyDtoH_v2)(back + 8, address + 64, 4));
    EXPECT(0, strcmp(rows, back));
}

static void streams(CUcontext context) {
    CUstream stream = NULL;
    CUcontext its_context = NULL;
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    CUgraph graph = NULL;
    EXPECT(CUDA_SUCCESS, CALL(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
    EXPECT(CUDA_SUCCESS, CALL(cuStreamGetCtx)(stream, &its_context));
    EXPECT(1, its_context == context);
    EXPECT(CUDA_SUCCESS, CALL(cuStreamIsCapturing)(stream, &status));
    EXPECT(CU_STREAM_CAPTURE_STATUS_NONE, status);
    EXPECT(CUDA_SUCCESS,
           CALL(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    EXPECT(CUDA_SUCCESS, CALL(cuStreamIsCapturing)(stream, &status));
    EXPECT(CU_STREAM_CAPTURE_STATUS_ACTIVE, status);
    EXPECT(CUDA_SUCCESS, CALL(cuStreamEndCapture)(stream, &graph));
    EXPECT(CUDA_SUCCESS, CALL(cuGraphDestroy)(graph));
    EXPECT(CUDA_SUCCESS, CALL(cuStreamDestroy_v2)(stream));
}

static void modes(void) {
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    EXPECT(CUDA_SUCCESS, CALL(cuThreadExchangeStreamCaptureMode)(&mode));
    EXPECT(CU_STREAM_CAPTURE_MODE_GLOBAL, mode);
    EXPECT(CUDA_SUCCESS, CALL(cuThreadExchangeStreamCaptureMode)(&mode));
    EXPECT(CU_STREAM_CAPTURE_MODE_RELAXED, mode);
}

static void events(void) {
    CUevent event = NULL;
    EXPECT(CUDA_SUCCESS, CALL(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING));
    EXPECT(CUDA_SUCCESS, CALL(cuEventRecord)(event, CU_STREAM_LEGACY));
    EXPECT(CUDA_SUCCESS, CALL(cuEventSynchronize)(event));
    EXPECT(CUDA_SUCCESS, CALL(cuEventQuery)(event));
    EXPECT(CUDA_SUCCESS, CALL(cuEventDestroy_v2)(event));
}

static void all(void) {
    CUdevice device = -1;
    CUcontext context = NULL;
    CUdeviceptr address = 0;
    EXPECT(CUDA_SUCCESS, CALL(cuInit)(0));
    EXPECT(CUDA_SUCCESS, CALL(cuDeviceGet)(&device, 1));
    device_attributes(device);
    EXPECT(CUDA_SUCCESS, CALL(cuDevicePrimaryCtxRetain)(&context, device));
    EXPECT(CUDA_SUCCESS, CALL(cuCtxPushCurrent_v2)(context));
    EXPECT(CUDA_SUCCESS, CALL(cuMemAlloc_v2)(&address, 128));
    pointer_attributes(context, device, address);
    copies_of_rows(address);
    streams(context);
    modes();
    events();
    EXPECT(CUDA_SUCCESS, CALL(cuMemFree_v2)(address));
    EXPECT(CUDA_SUCCESS, CALL(cuCtxPopCurrent_v2)(&context));
    EXPECT(CUDA_SUCCESS, CALL(cuDevicePrimaryCtxRelease_v2)(device));
}

int main(int count, char **arguments) {
    library = count == 2 ? dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) {
        fprintf(stderr, "usage: driver LIBRARY: %s\n", count == 2 ? dlerror() : "none given");
        return 2;
    }
    all();
    printf("the simulated driver: %d of its answers are not the header's\n", failures);
    return failures != 0;
}
