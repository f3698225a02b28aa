/* Hugging Face's static caches: [batch, heads, longest, width] for each layer, filled up to the last token. */
#include "engine.h"

/* BART-large's widths; a batch of 2, 30 tokens long in a cache of 64. */
enum { layers = 2, d_model = 1024, num_heads = 16, head_dim = 64, batch = 2, length = 30, max_cache_len = 64 };

static void *keys[layers], *values[layers], *query_states;
static const void *encoder_hidden_states, *hidden_states;

/* snippet: hugging-face-spec */
static void bart_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_F16;
    model->layer_count = layers;
    model->decoder_width = model->encoder_width = d_model;
    model->query_heads = model->key_value_heads = num_heads;
    model->head_width = head_dim;
    model->query_bias = model->key_bias = model->value_bias = 1;
    model->query_scale = 1 / sqrtf(head_dim); /* BartAttention's scaling, if it is applied to Q */
}
/* end of snippet */

/* snippet: hugging-face-cache */
static void fill_cross_attention_cache(xqkv_forward *call) {
    xqkv_forward_init(call, sizeof *call);
    call->layer_count = layers;
    call->encoder.data = encoder_hidden_states; /* [batch, length, d_model] */
    call->encoder.rows = batch * length, call->encoder.dtype = XQKV_DTYPE_F16;
    call->key.layer_data = keys, call->value.layer_data = values; /* data_ptr() of each layer's tensors */
    xqkv_view *views[] = {&call->key, &call->value};
    for (int at = 0; at < 2; at++) {
        views[at]->dtype = XQKV_DTYPE_F16;
        views[at]->row_stride = head_dim;
        views[at]->head_stride = max_cache_len * head_dim;
        views[at]->group_rows = length; /* not max_cache_len: rows of one sequence that are given */
        views[at]->group_stride = (int64_t)num_heads * max_cache_len * head_dim;
    }
}
/* end of snippet */

/* snippet: hugging-face-decode */
static void project_query(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->decoder.data = hidden_states; /* [batch, 1, d_model] */
    call->decoder.rows = batch, call->decoder.dtype = XQKV_DTYPE_F16;
    call->query.data = query_states, call->query.dtype = XQKV_DTYPE_F16; /* [batch, num_heads, 1, head_dim] */
}
/* end of snippet */

static void *cache_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    uint16_t *cache = part == KEY ? keys[layer] : values[layer];
    return cache + ((row / length * num_heads + head) * max_cache_len + row % length) * head_dim + lane;
}

static void *query_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)part, (void)layer;
    return (uint16_t *)query_states + (row * num_heads + head) * head_dim + lane;
}

static void unfilled_tokens_are_zero(void) {
    static const uint16_t zeros[(max_cache_len - length) * head_dim];
    for (int head = 0; head < layers * batch * num_heads; head++) {
        int64_t behind = (head % (batch * num_heads) * max_cache_len + length) * head_dim;
        CHECK(memcmp((uint16_t *)keys[head / (batch * num_heads)] + behind, zeros, sizeof zeros) == 0);
        CHECK(memcmp((uint16_t *)values[head / (batch * num_heads)] + behind, zeros, sizeof zeros) == 0);
    }
}

int main(void) {
    xqkv_forward call;
    bart_spec(&spec);
    CHECK(fabsf(spec.query_scale - 1 / 8.0f) < 1e-7f);
    engine_open();
    encoder_hidden_states = engine_input(KEY, batch * length, XQKV_DTYPE_F16);
    hidden_states = engine_input(QUERY, batch, XQKV_DTYPE_F16);
    for (int layer = 0; layer < layers; layer++) {
        keys[layer] = engine_buffer(batch * num_heads * max_cache_len * head_dim, XQKV_DTYPE_F16, 0);
        values[layer] = engine_buffer(batch * num_heads * max_cache_len * head_dim, XQKV_DTYPE_F16, 0);
    }
    query_states = engine_buffer(batch * num_heads * head_dim, XQKV_DTYPE_F16, 0xff);
    fill_cross_attention_cache(&call);
    check_place("caches of all layers", &call, cache_place);
    unfilled_tokens_are_zero();
    project_query(&call, 1);
    check_place("a decode step", &call, query_place);
    engine_close();
    return check_done();
}
