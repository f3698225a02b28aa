/* Addresses that the device cannot use are refused, where no plan says that nobody looks. */
#include "gpu.h"

static xqkv_projection *projection;

/* A good call with one address changed is refused, and puts nothing on the stream. */
static void refused(xqkv_forward call, xqkv_status status, const char *word) {
    uint64_t before = gpusim_matmuls();
    CHECK_REFUSED(status, word, xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK(gpusim_matmuls() == before);
}

static void everywhere(void *address, xqkv_status status) {
    xqkv_forward call = gpu_call(3, 4);
    xqkv_forward decoder = call, encoder = call, query = call, key = call, value = call;
    decoder.decoder.data = encoder.encoder.data = address;
    query.query.data = key.key.data = value.value.data = address;
    refused(decoder, status, "decoder.data");
    refused(encoder, status, "encoder.data");
    refused(query, status, "query.data");
    refused(key, status, "key.data");
    refused(value, status, "value.data");
}

static void host_memory_is_refused(void) {
    static float host[MOST_ROWS * MOST_COLUMNS];
    everywhere(host, XQKV_STATUS_WRONG_MEMORY);
    xqkv_forward call = gpu_call(3, 4);
    /* At a multiple of 256, so that only whose memory it is can be wrong. */
    call.workspace = (void *)(((uintptr_t)host + 255) & ~(uintptr_t)255), call.workspace_bytes = 64;
    refused(call, XQKV_STATUS_WRONG_MEMORY, "workspace");
}

static void another_devices_memory_is_refused(void) {
    void *other = NULL;
    device_pointer address = 0;
    GPU(cuDevicePrimaryCtxRetain(&other, 1));
    GPU(cuCtxSetCurrent(other));
    GPU(cuMemAlloc_v2(&address, 4096));
    GPU(cuCtxSetCurrent(gpu_context));
    everywhere((void *)(uintptr_t)address, XQKV_STATUS_WRONG_MEMORY);
    GPU(cuCtxSetCurrent(other));
    GPU(cuMemFree_v2(address));
    GPU(cuCtxSetCurrent(gpu_context));
    GPU(cuDevicePrimaryCtxRelease_v2(1));
}

static void freed_memory_is_refused(void) {
    device_pointer address = 0;
    GPU(cuMemAlloc_v2(&address, 4096));
    GPU(cuMemFree_v2(address));
    everywhere((void *)(uintptr_t)address, XQKV_STATUS_WRONG_MEMORY);
}

static void misaligned_memory_is_refused(void) {
    everywhere((void *)(uintptr_t)(gpu_outputs + 2), XQKV_STATUS_MISALIGNED);
    xqkv_forward call = gpu_call(3, 4);
    call.workspace = (void *)(uintptr_t)(gpu_outputs + 4), call.workspace_bytes = 64;
    refused(call, XQKV_STATUS_MISALIGNED, "workspace");
}

static xqkv_status put(const void *data, int memory, int ownership) {
    xqkv_update *update = NULL;
    xqkv_tensor tensor = test_tensor(data, test_columns(QUERY), DECODER_WIDTH);
    tensor.memory = memory, tensor.ownership = ownership;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    xqkv_status status = xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error);
    xqkv_error kept = error;
    CHECK_OK(xqkv_update_abandon(update, &error));
    error = kept;
    return status;
}

static void weights_are_where_their_tensor_says(void) {
    static float host[MOST_COLUMNS * DECODER_WIDTH];
    void *device = (void *)(uintptr_t)gpu_outputs;
    CHECK_OK(put(host, XQKV_MEMORY_HOST, XQKV_OWNERSHIP_COPY));
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "data", put(device, XQKV_MEMORY_HOST, XQKV_OWNERSHIP_COPY));
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "data", put(host, XQKV_MEMORY_DEVICE, XQKV_OWNERSHIP_COPY));
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "data", put(host, XQKV_MEMORY_DEVICE, XQKV_OWNERSHIP_BORROW));
}

int main(void) {
    gpu_begin();
    projection = ready_projection(1);
    host_memory_is_refused();
    another_devices_memory_is_refused();
    freed_memory_is_refused();
    misaligned_memory_is_refused();
    weights_are_where_their_tensor_says();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return gpu_done();
}
