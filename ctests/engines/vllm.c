/* vLLM: pages in every axis order that its attention backends ask for, at the slots of cross_slot_mapping. */
#include "engine.h"

/* Whisper-small's widths as one rank of two; the mapping is padded for a CUDA graph. */
enum { layers = 2, width = 768, num_heads = 6, num_kv_heads = 6, head_size = 64, num_blocks = 7, block_size = 16,
       enc_tokens = 44, padded = 48, dec_tokens = 9 };

/* What reshaping a layer's raw memory comes to: where K and V begin, and elements from step to step of an axis. */
typedef struct {
    void *key, *value;
    int64_t block, token, head;
} kv_cache;

static kv_cache cache;
static int64_t cross_slot_mapping[padded];
static void *q;
static const void *decoder_states, *encoder_states;

/* snippet: vllm-spec */
static void whisper_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_BF16;
    model->layer_count = layers;
    model->decoder_width = model->encoder_width = width;
    model->query_heads = model->key_value_heads = 12; /* of all ranks */
    model->head_width = head_size;
    model->query_bias = model->value_bias = 1;
}
/* end of snippet */

/* snippet: vllm-cache */
static void cross_cache(xqkv_view *view, void *first) {
    view->data = first;
    view->dtype = XQKV_DTYPE_BF16;
    view->row_stride = cache.token; /* kv_cache.stride() of the axes, in whatever order they lie */
    view->head_stride = cache.head;
    view->group_rows = block_size;
    view->group_stride = cache.block;
    view->slots = cross_slot_mapping; /* -1 leaves a row out */
    view->slot_count = num_blocks * block_size;
}
/* end of snippet */

/* snippet: vllm-forward */
static void cross_attention(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->decoder.data = decoder_states;
    call->decoder.rows = dec_tokens, call->decoder.dtype = XQKV_DTYPE_BF16;
    call->query.data = q, call->query.dtype = XQKV_DTYPE_BF16;
    if (encoder_states != NULL) { /* the step has new requests */
        call->encoder.data = encoder_states;
        call->encoder.rows = padded, call->encoder.dtype = XQKV_DTYPE_BF16;
        cross_cache(&call->key, cache.key);
        cross_cache(&call->value, cache.value);
    }
    call->workspace = workspace, call->workspace_bytes = sizeof workspace;
}
/* end of snippet */

/* A backend names the axes of the cache in one order and lets memory have them in another: `memory[i]` is the axis of
   the shape that is the i-th from the outside in memory. */
typedef struct {
    const char *name;
    const char *axes; /* k: K and V; b: blocks; t: tokens; h: heads; d: lanes; e: lanes of K, then of V; l: layers */
    int memory[6];
} backend;

static const backend backends[] = {
    {"flash attention, NHD", "kbthd", {0, 1, 2, 3, 4}},
    {"flash attention, HND", "kbthd", {0, 1, 3, 2, 4}},
    {"blocks outside, NHD", "bkthd", {0, 1, 2, 3, 4}},
    {"blocks outside, HND", "bkthd", {0, 1, 3, 2, 4}},
    {"layers of a block together, NHD", "lbkthd", {1, 0, 2, 3, 4, 5}},
    {"layers of a block together, HND", "lbkthd", {1, 4, 0, 2, 3, 5}},
    {"K beside V in the lanes, HND", "bhte", {0, 1, 2, 3}},
    {"K beside V in the lanes, NHD", "bhte", {0, 2, 1, 3}},
};

static int64_t extent(char axis) {
    switch (axis) {
    case 'k': return 2;
    case 'b': return num_blocks;
    case 't': return block_size;
    case 'h': return num_kv_heads;
    case 'd': return head_size;
    case 'e': return 2 * head_size;
    default: return layers;
    }
}

/* Elements from one step of an axis to the next: the extents of all axes inside it in memory. An axis that there is not
   never steps. */
static int64_t stride(const backend *of, char axis) {
    int64_t elements = 1;
    for (int at = (int)strlen(of->axes) - 1; at >= 0; at--) {
        if (of->axes[of->memory[at]] == axis) return elements;
        elements *= extent(of->axes[of->memory[at]]);
    }
    return 0;
}

static const backend *current;
static uint16_t *raw;

/* As the attention kernels go: a block of the request's, a token of it. */
static void *page_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)layer;
    if (part == QUERY) return (uint16_t *)q + (row * num_heads + head) * head_size + lane;
    if (cross_slot_mapping[row] < 0) return NULL;
    int64_t block = cross_slot_mapping[row] / block_size, token = cross_slot_mapping[row] % block_size;
    int is_beside = strchr(current->axes, 'e') != NULL;
    int64_t at = block * stride(current, 'b') + token * stride(current, 't') + head * stride(current, 'h');
    at += is_beside ? lane + (part == VALUE) * head_size : lane + (part == VALUE) * stride(current, 'k');
    return raw + at + stride(current, 'l');
}

/* Blocks of two requests in no order, each begun anew; behind them the padding. */
static void fill_mapping(void) {
    static const int blocks[] = {5, 1, 3, 6};
    for (int row = 0; row < padded; row++) {
        int token = row < 25 ? row : row - 25 + 2 * block_size;
        cross_slot_mapping[row] = row < enc_tokens ? blocks[token / block_size] * block_size + token % block_size : -1;
    }
}

static void check_backend(const backend *of) {
    xqkv_forward call;
    current = of;
    engine_release();
    raw = engine_buffer(layers * 2 * num_blocks * block_size * num_kv_heads * head_size, XQKV_DTYPE_BF16, 0xff);
    q = engine_buffer(dec_tokens * num_heads * head_size, XQKV_DTYPE_BF16, 0xff);
    cache.block = stride(of, 'b'), cache.token = stride(of, 't'), cache.head = stride(of, 'h');
    cache.key = raw + stride(of, 'l'); /* layer 1 where the layers share memory */
    cache.value = (uint16_t *)cache.key + (strchr(of->axes, 'e') != NULL ? head_size : stride(of, 'k'));
    cross_attention(&call, 1);
    check_place(of->name, &call, page_place);
}

/* The golden strides: by hand, of pages of 16 tokens, 6 heads and 64 lanes. */
static void strides_are_as_computed_by_hand(void) {
    static const int64_t golden[][5] = {
        {43008, 6144, 384, 64, 0},     {43008, 6144, 64, 1024, 0},    {6144, 12288, 384, 64, 0},
        {6144, 12288, 64, 1024, 0},    {6144, 24576, 384, 64, 12288}, {1024, 24576, 64, 4096, 2048},
        {0, 12288, 128, 2048, 0},      {0, 12288, 768, 128, 0}};
    for (int at = 0; at < (int)(sizeof backends / sizeof *backends); at++)
        for (int axis = 0; axis < 5; axis++) CHECK(stride(&backends[at], "kbthl"[axis]) == golden[at][axis]);
}

int main(void) {
    xqkv_forward call;
    ranks = 2, rank = 1;
    whisper_spec(&spec);
    engine_open();
    strides_are_as_computed_by_hand();
    fill_mapping();
    decoder_states = engine_input(QUERY, dec_tokens, XQKV_DTYPE_BF16);
    encoder_states = engine_input(KEY, padded, XQKV_DTYPE_BF16);
    for (int at = 0; at < (int)(sizeof backends / sizeof *backends); at++) check_backend(&backends[at]);
    encoder_states = NULL;
    cross_attention(&call, 0);
    check_place("a decode step", &call, page_place);
    engine_close();
    return check_done();
}
