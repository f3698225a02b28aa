/* TensorRT-LLM: cross_kv packed by token for its attention operator, or straight into the blocks of the cross pool. */
#include "engine.h"

/* As mllama's cross-attention, one rank of two, narrower: 16 query heads on 4 of K and V, 128 wide. */
enum { layers = 2, hidden = 1024, heads = 8, kv_heads = 2, width = 128, tokens = 45, steps = 7, tokens_per_block = 16,
       blocks = 9 };

/* Two requests, of 25 and of 20 encoder tokens, and their blocks of the pool. */
static const int block_table[2][2] = {{7, 2}, {4, 0}};
static const int lengths[2] = {25, 20};
static int64_t slots[tokens];
static void *query, *cross_kv, *pool;
static const void *hidden_states, *encoder_hidden_states;

/* snippet: tensorrt-spec */
static void mllama_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_BF16;
    model->layer_count = layers;
    model->decoder_width = model->encoder_width = hidden;
    model->query_heads = 16, model->key_value_heads = 4; /* of all ranks */
    model->head_width = width;
}
/* end of snippet */

/* snippet: tensorrt-packed */
static void project_packed(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->decoder.data = hidden_states;
    call->decoder.rows = steps, call->decoder.dtype = XQKV_DTYPE_BF16;
    call->encoder.data = encoder_hidden_states; /* NULL under skip_cross_kv_projection */
    call->encoder.rows = tokens, call->encoder.dtype = XQKV_DTYPE_BF16;
    call->query.data = query; /* [steps, heads * width] */
    call->key.data = cross_kv; /* [tokens, 2 * kv_heads * width]: K's columns, then V's */
    call->value.data = (uint16_t *)cross_kv + kv_heads * width;
    call->key.row_stride = call->value.row_stride = 2 * kv_heads * width;
    call->query.dtype = call->key.dtype = call->value.dtype = XQKV_DTYPE_BF16;
}
/* end of snippet */

/* snippet: tensorrt-paged */
static void fill_pool(xqkv_forward *call) {
    const int64_t half = (int64_t)kv_heads * tokens_per_block * width; /* K of one layer's block, or V */
    xqkv_forward_init(call, sizeof *call);
    call->layer_count = layers;
    call->encoder.data = encoder_hidden_states;
    call->encoder.rows = tokens, call->encoder.dtype = XQKV_DTYPE_BF16;
    call->key.data = pool; /* [blocks, layers, 2, kv_heads, tokens_per_block, width] */
    call->value.data = (uint16_t *)pool + half;
    xqkv_view *views[] = {&call->key, &call->value};
    for (int at = 0; at < 2; at++) {
        views[at]->dtype = XQKV_DTYPE_BF16;
        views[at]->row_stride = width;
        views[at]->head_stride = tokens_per_block * width;
        views[at]->layer_stride = 2 * half;
        views[at]->group_rows = tokens_per_block;
        views[at]->group_stride = layers * 2 * half;
        views[at]->slots = slots; /* block * tokens_per_block + the token's number in it */
        views[at]->slot_count = blocks * tokens_per_block;
    }
    call->workspace = workspace, call->workspace_bytes = sizeof workspace;
}
/* end of snippet */

static void *packed_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)layer;
    if (part == QUERY) return (uint16_t *)query + (row * heads + head) * width + lane;
    return (uint16_t *)cross_kv + ((row * 2 + (part == VALUE)) * kv_heads + head) * width + lane;
}

/* By the request's table of blocks, as the attention kernels go, and not by the slots. */
static void *paged_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    int request = row >= lengths[0];
    int64_t token = request ? row - lengths[0] : row, block = block_table[request][token / tokens_per_block];
    int64_t at = ((block * layers + layer) * 2 + (part == VALUE)) * kv_heads + head;
    return (uint16_t *)pool + (at * tokens_per_block + token % tokens_per_block) * width + lane;
}

static void fill_slots(void) {
    for (int request = 0, row = 0; request < 2; request++)
        for (int token = 0; token < lengths[request]; token++)
            slots[row++] = block_table[request][token / tokens_per_block] * tokens_per_block + token % tokens_per_block;
}

int main(void) {
    xqkv_forward call;
    ranks = 2, rank = 1;
    mllama_spec(&spec);
    engine_open();
    fill_slots();
    encoder_hidden_states = engine_input(KEY, tokens, XQKV_DTYPE_BF16);
    hidden_states = engine_input(QUERY, steps, XQKV_DTYPE_BF16);
    query = engine_buffer(steps * heads * width, XQKV_DTYPE_BF16, 0xff);
    cross_kv = engine_buffer(tokens * 2 * kv_heads * width, XQKV_DTYPE_BF16, 0xff);
    pool = engine_buffer((int64_t)blocks * layers * 2 * kv_heads * tokens_per_block * width, XQKV_DTYPE_BF16, 0xff);
    project_packed(&call, 1);
    check_place("a context step: Q, and K and V packed by token", &call, packed_place);
    memset(&call.encoder, 0, sizeof call.encoder);
    check_place("a generation step", &call, packed_place);
    fill_pool(&call);
    check_place("blocks of the cross pool, all layers", &call, paged_place);
    engine_close();
    return check_done();
}
