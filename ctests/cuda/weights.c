/* Device memory of weights: what is taken is what was told, borrowed weights take none, and retired ones stay until their
   work is done. */
#include "engine.h"

typedef struct {
    int64_t bytes, alignment, live, allocations, frees;
    void *freed_on;
} ledger;

static void *lend(int64_t bytes, int64_t alignment, void *stream, void *user) {
    ledger *kept = user;
    (void)stream;
    kept->bytes = bytes, kept->alignment = alignment, kept->live += bytes, kept->allocations++;
    return device_memory((size_t)bytes);
}

static void take_back(void *memory, int64_t bytes, void *stream, void *user) {
    ledger *kept = user;
    kept->live -= bytes, kept->frees++, kept->freed_on = stream;
    synchronize();
    device_free(memory);
}

static xqkv_context *lending_context(ledger *kept) {
    xqkv_context_options options;
    xqkv_context *context = NULL;
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.backend = XQKV_BACKEND_CUDA;
    options.allocate = lend, options.free = take_back, options.allocator_user = kept;
    CHECK_OK(xqkv_context_create(&options, &context, &error));
    return context;
}

static void a_commit_takes_exactly_what_it_told(void) {
    ledger kept = {0};
    int64_t told = -1;
    xqkv_context *context = lending_context(&kept);
    xqkv_projection *projection = test_projection(context, NULL);
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    put_all(update, 0);
    CHECK_OK(xqkv_update_get_commit_bytes(update, &told, &error));
    CHECK(kept.allocations == 0);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(kept.allocations == 1 && kept.bytes == told && kept.alignment == 256 && kept.live == told);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK(kept.frees == 0);
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK(kept.frees == 1 && kept.live == 0);
}

static void retired_weights_go_with_their_stream_or_at_the_engine_s_word(void) {
    ledger kept = {0};
    int64_t waiting = -1;
    void *stream = new_stream();
    xqkv_context *context = lending_context(&kept);
    xqkv_projection *projection = test_projection(context, NULL);
    load(projection, 0);
    load(projection, 1);
    CHECK(kept.allocations == 2 && kept.frees == 0);
    CHECK_OK(xqkv_context_reclaim(context, &stream, 1, &waiting, &error));
    CHECK(kept.frees == 1 && kept.freed_on == stream && waiting == 0);
    load(projection, 2);
    CHECK_OK(xqkv_context_reclaim(context, NULL, 0, NULL, &error));
    CHECK(kept.frees == 2);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK(kept.live == 0);
    DRIVER("cuStreamDestroy_v2", (void *), (stream));
}

/* Without callbacks: a queued forward still reads the old weights, and they go only behind it. */
static void the_driver_s_memory_waits_for_queued_work(void) {
    int64_t waiting = -1;
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = test_projection(context, NULL);
    load(projection, 0);
    device_call made = new_call(3, 4);
    made.call.stream = new_stream();
    CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
    load(projection, 1);
    CHECK_OK(xqkv_context_reclaim(context, &made.call.stream, 1, &waiting, &error));
    CHECK(waiting >= 0);
    CHECK(has_results(&made, 3, 4, 0, 0));
    CHECK_OK(xqkv_context_reclaim(context, &made.call.stream, 1, &waiting, &error));
    CHECK(waiting == 0);
    CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
    CHECK(has_results(&made, 3, 4, 0, 1));
    DRIVER("cuStreamDestroy_v2", (void *), (made.call.stream));
    free_call(&made);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

/* The engine's fused QKV in device memory, decoder and encoder equally wide, no bias. */
static void row_blocks_of_a_fused_weight_are_used_in_place(void) {
    enum { WIDTH = 8, HEADS_OF_ALL = 2, HEAD = 4, COLUMNS = 8 };
    static float fused[3 * COLUMNS * WIDTH], rows[4 * WIDTH], found[3][4 * COLUMNS];
    int64_t told = -1;
    xqkv_spec spec;
    xqkv_stats stats;
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    for (int at = 0; at < 3 * COLUMNS * WIDTH; at++) fused[at] = (float)(at * 7 % 11 - 5);
    for (int at = 0; at < 4 * WIDTH; at++) rows[at] = (float)(at * 5 % 7 - 3);
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    spec.weight_dtype = XQKV_DTYPE_F32, spec.layer_count = 1, spec.decoder_width = spec.encoder_width = WIDTH;
    spec.query_heads = spec.key_value_heads = HEADS_OF_ALL, spec.head_width = HEAD;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    void *weight = on_device(fused, sizeof fused), *input = on_device(rows, sizeof rows), *out = device_memory(sizeof found);
    xqkv_tensor tensor = test_tensor(weight, 3 * COLUMNS, WIDTH);
    tensor.memory = XQKV_MEMORY_DEVICE, tensor.ownership = XQKV_OWNERSHIP_BORROW;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY_KEY_VALUE, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(xqkv_update_get_commit_bytes(update, &told, &error));
    CHECK(told == 0);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    xqkv_forward call;
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    call.decoder.data = call.encoder.data = input, call.decoder.rows = call.encoder.rows = 4;
    call.decoder.dtype = call.encoder.dtype = call.query.dtype = call.key.dtype = call.value.dtype = XQKV_DTYPE_F32;
    call.query.data = out, call.key.data = (char *)out + sizeof found[0], call.value.data = (char *)out + 2 * sizeof found[0];
    CHECK_OK(xqkv_projection_forward(projection, &call, &stats, &error));
    CHECK(stats.matmuls == 2); /* Q; K and V as a batch of two, since V's rows follow K's */
    download(found, out, sizeof found);
    for (int part = 0; part < 3; part++)
        for (int at = 0; at < 4 * COLUMNS; at++) {
            float sum = 0;
            for (int k = 0; k < WIDTH; k++)
                sum += rows[at / COLUMNS * WIDTH + k] * fused[(part * COLUMNS + at % COLUMNS) * WIDTH + k];
            CHECK(found[part][at] == sum);
        }
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    device_free(weight), device_free(input), device_free(out);
}

/* Device memory that is copied, and a commit of one part that leaves the others. */
static void device_tensors_are_copied_and_parts_carry_over(void) {
    static float weight[12 * DECODER_WIDTH];
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = test_projection(context, NULL);
    xqkv_update *update = NULL;
    load(projection, 0);
    for (int at = 0; at < 12 * DECODER_WIDTH; at++) weight[at] = test_weight(QUERY, 0, at / DECODER_WIDTH, at % DECODER_WIDTH, 2);
    void *memory = on_device(weight, sizeof weight);
    xqkv_tensor tensor = test_tensor(memory, 12, DECODER_WIDTH);
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    CHECK_REFUSED(XQKV_STATUS_WRONG_MEMORY, "tensor.data",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor.memory = XQKV_MEMORY_DEVICE;
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    tensor.ownership = XQKV_OWNERSHIP_BORROW;
    CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "bias",
                  xqkv_update_put(update, 1, XQKV_PART_QUERY, XQKV_KIND_BIAS,
                                  &(xqkv_tensor){.struct_size = sizeof tensor, .dtype = XQKV_DTYPE_F32, .data = memory,
                                                 .rows = 12, .columns = 1, .memory = XQKV_MEMORY_DEVICE,
                                                 .ownership = XQKV_OWNERSHIP_BORROW},
                                  &error));
    device_free(memory);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    device_call made = new_call(3, 4);
    CHECK_OK(xqkv_projection_forward(projection, &made.call, NULL, &error));
    static outputs found;
    download(&found, made.out, sizeof found);
    CHECK(has_rows(&found, QUERY, 0, 3, 2) && has_rows(&found, KEY, 0, 4, 0) && has_rows(&found, VALUE, 0, 4, 0));
    free_call(&made);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

int main(void) {
    engine_open();
    a_commit_takes_exactly_what_it_told();
    retired_weights_go_with_their_stream_or_at_the_engine_s_word();
    the_driver_s_memory_waits_for_queued_work();
    row_blocks_of_a_fused_weight_are_used_in_place();
    device_tensors_are_copied_and_parts_carry_over();
    return engine_close();
}
