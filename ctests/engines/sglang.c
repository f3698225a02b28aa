/* SGLang: a tensor of slots for each layer, at encoder_out_cache_loc. */
#include "engine.h"

/* As mllama's cross-attention, narrower: 16 query heads on 4 of K and V, 128 wide. */
enum { layers = 3, hidden = 1024, heads = 16, kv_heads = 4, width = 128, encoder_tokens = 41, tokens = 6, size = 100 };

static void *k_buffer[layers], *v_buffer[layers], *q;
static const void *cross_attention_states, *hidden_states;
static int64_t encoder_out_cache_loc[encoder_tokens];

/* snippet: sglang-spec */
static void mllama_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_BF16;
    model->layer_count = layers; /* those with cross-attention only */
    model->decoder_width = model->encoder_width = hidden;
    model->query_heads = heads, model->key_value_heads = kv_heads;
    model->head_width = width;
}
/* end of snippet */

/* snippet: sglang-extend */
static void fill_pool(xqkv_forward *call) {
    xqkv_forward_init(call, sizeof *call);
    call->layer_count = layers;
    call->encoder.data = cross_attention_states; /* of the requests that are not encoder_cached */
    call->encoder.rows = encoder_tokens, call->encoder.dtype = XQKV_DTYPE_BF16;
    call->key.layer_data = k_buffer, call->value.layer_data = v_buffer; /* [size + 1, kv_heads, width] each */
    call->key.slots = call->value.slots = encoder_out_cache_loc;
    call->key.slot_count = call->value.slot_count = size + 1; /* slot 0 is the padding's */
    call->key.dtype = call->value.dtype = XQKV_DTYPE_BF16;
    call->workspace = workspace, call->workspace_bytes = sizeof workspace;
}
/* end of snippet */

/* snippet: sglang-decode */
static void project_query(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->decoder.data = hidden_states;
    call->decoder.rows = tokens, call->decoder.dtype = XQKV_DTYPE_BF16;
    call->query.data = q, call->query.dtype = XQKV_DTYPE_BF16;
}
/* end of snippet */

static void *pool_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    uint16_t *buffer = part == KEY ? k_buffer[layer] : v_buffer[layer];
    return buffer + (encoder_out_cache_loc[row] * kv_heads + head) * width + lane;
}

static void *query_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)part, (void)layer;
    return (uint16_t *)q + (row * heads + head) * width + lane;
}

int main(void) {
    xqkv_forward call;
    mllama_spec(&spec);
    engine_open();
    for (int row = 0; row < encoder_tokens; row++) encoder_out_cache_loc[row] = 1 + row * 37 % size;
    cross_attention_states = engine_input(KEY, encoder_tokens, XQKV_DTYPE_BF16);
    hidden_states = engine_input(QUERY, tokens, XQKV_DTYPE_BF16);
    q = engine_buffer(tokens * heads * width, XQKV_DTYPE_BF16, 0xff);
    for (int layer = 0; layer < layers; layer++) {
        k_buffer[layer] = engine_buffer((size + 1) * kv_heads * width, XQKV_DTYPE_BF16, 0);
        v_buffer[layer] = engine_buffer((size + 1) * kv_heads * width, XQKV_DTYPE_BF16, 0);
    }
    fill_pool(&call);
    check_place("slots of all layers", &call, pool_place);
    project_query(&call, 2);
    check_place("a decode step", &call, query_place);
    engine_close();
    return check_done();
}
