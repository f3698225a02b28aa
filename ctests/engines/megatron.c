/* Megatron-LM: what linear_kv gives, K and V of each head side by side, and Q of linear_q. */
#include "engine.h"

/* A T5 of 16 heads as rank 3 of 4; tokens are [sequence, batch]. */
enum { layers = 1, hidden = 1024, np = 4, hn = 64, sk = 24, sq = 5, b = 2 };

static void *mixed_kv, *query;
static const void *key_value_states, *hidden_states;

/* snippet: megatron-spec */
static void t5_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_BF16;
    model->layer_count = layers;
    model->decoder_width = model->encoder_width = hidden;
    model->query_heads = model->key_value_heads = 16; /* of all ranks; fewer of K and V are fine here */
    model->head_width = hn;
    model->query_bias = model->key_bias = model->value_bias = 1;
}
/* end of snippet */

/* snippet: megatron-forward */
static void query_key_value(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->decoder.data = hidden_states; /* [sq, b, hidden] */
    call->decoder.rows = sq * b, call->decoder.dtype = XQKV_DTYPE_BF16;
    call->encoder.data = key_value_states; /* [sk, b, hidden] */
    call->encoder.rows = sk * b, call->encoder.dtype = XQKV_DTYPE_BF16;
    call->query.data = query; /* [sq, b, np, hn] */
    call->key.data = mixed_kv, call->value.data = (uint16_t *)mixed_kv + hn; /* [sk, b, np, 2, hn] */
    call->key.row_stride = call->value.row_stride = np * 2 * hn;
    call->key.head_stride = call->value.head_stride = 2 * hn;
    call->query.dtype = call->key.dtype = call->value.dtype = XQKV_DTYPE_BF16;
}
/* end of snippet */

static void *mixed_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)layer;
    if (part == QUERY) return (uint16_t *)query + (row * np + head) * hn + lane;
    return (uint16_t *)mixed_kv + ((row * np + head) * 2 + (part == VALUE)) * hn + lane;
}

int main(void) {
    xqkv_forward call;
    ranks = 4, rank = 3;
    t5_spec(&spec);
    engine_open();
    key_value_states = engine_input(KEY, sk * b, XQKV_DTYPE_BF16);
    hidden_states = engine_input(QUERY, sq * b, XQKV_DTYPE_BF16);
    mixed_kv = engine_buffer(sk * b * np * 2 * hn, XQKV_DTYPE_BF16, 0xff);
    query = engine_buffer(sq * b * np * hn, XQKV_DTYPE_BF16, 0xff);
    query_key_value(&call, 0);
    check_place("K and V of each head side by side", &call, mixed_place);
    memset(&call.encoder, 0, sizeof call.encoder);
    check_place("a step with K and V kept", &call, mixed_place);
    engine_close();
    return check_done();
}
