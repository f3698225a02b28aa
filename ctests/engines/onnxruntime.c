/* ONNX Runtime: [batch, heads, time, width] as DecoderAttention keeps it, and MultiHeadAttention's packed K and V. */
#include "engine.h"

/* Whisper-tiny's widths, in f32. */
enum { layers = 2, hidden = 384, N = 6, H = 64, B = 2, S = 50, L = 50, steps = 4 };

static void *present_key[layers], *present_value[layers], *packed_kv, *query;
static const void *encoder_hidden_states, *decoder_hidden_states;

/* snippet: onnxruntime-spec */
static void whisper_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_F32;
    model->layer_count = layers;
    model->decoder_width = model->encoder_width = hidden;
    model->query_heads = model->key_value_heads = N;
    model->head_width = H;
    model->query_bias = model->value_bias = 1;
}
/* end of snippet */

/* snippet: onnxruntime-present */
static void fill_present(xqkv_forward *call) {
    xqkv_forward_init(call, sizeof *call);
    call->layer_count = layers;
    call->encoder.data = encoder_hidden_states; /* [B, S, hidden] */
    call->encoder.rows = B * S, call->encoder.dtype = XQKV_DTYPE_F32;
    call->key.layer_data = present_key, call->value.layer_data = present_value; /* [B, N, S, H] each */
    xqkv_view *views[] = {&call->key, &call->value};
    for (int at = 0; at < 2; at++) {
        views[at]->dtype = XQKV_DTYPE_F32;
        views[at]->row_stride = H, views[at]->head_stride = S * H;
        views[at]->group_rows = S, views[at]->group_stride = N * S * H;
    }
}
/* end of snippet */

/* snippet: onnxruntime-packed */
static void fill_packed(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->encoder.data = encoder_hidden_states;
    call->encoder.rows = B * L, call->encoder.dtype = XQKV_DTYPE_F32;
    call->key.data = packed_kv, call->value.data = (float *)packed_kv + H; /* [B, L, N, 2, H] */
    call->key.row_stride = call->value.row_stride = N * 2 * H;
    call->key.head_stride = call->value.head_stride = 2 * H;
    call->key.dtype = call->value.dtype = XQKV_DTYPE_F32;
}
/* end of snippet */

/* snippet: onnxruntime-decode */
static void project_query(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->decoder.data = decoder_hidden_states; /* [B, steps, hidden] */
    call->decoder.rows = B * steps, call->decoder.dtype = XQKV_DTYPE_F32;
    call->query.data = query, call->query.dtype = XQKV_DTYPE_F32; /* [B, N, steps, H] */
    call->query.row_stride = H, call->query.head_stride = steps * H;
    call->query.group_rows = steps, call->query.group_stride = N * steps * H;
}
/* end of snippet */

static void *present_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    float *present = part == KEY ? present_key[layer] : present_value[layer];
    return present + ((row / S * N + head) * S + row % S) * H + lane;
}

static void *packed_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)layer;
    int64_t batch = row / L, token = row % L;
    return (float *)packed_kv + (((batch * L + token) * N + head) * 2 + (part == VALUE)) * H + lane;
}

static void *query_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)part, (void)layer;
    return (float *)query + ((row / steps * N + head) * steps + row % steps) * H + lane;
}

int main(void) {
    xqkv_forward call;
    whisper_spec(&spec);
    engine_open();
    encoder_hidden_states = engine_input(KEY, B * S, XQKV_DTYPE_F32);
    decoder_hidden_states = engine_input(QUERY, B * steps, XQKV_DTYPE_F32);
    query = engine_buffer(B * N * steps * H, XQKV_DTYPE_F32, 0xff);
    packed_kv = engine_buffer(B * L * N * 2 * H, XQKV_DTYPE_F32, 0xff);
    for (int layer = 0; layer < layers; layer++) {
        present_key[layer] = engine_buffer(B * N * S * H, XQKV_DTYPE_F32, 0xff);
        present_value[layer] = engine_buffer(B * N * S * H, XQKV_DTYPE_F32, 0xff);
    }
    fill_present(&call);
    check_place("present K and V of all layers", &call, present_place);
    fill_packed(&call, 1);
    check_place("K and V packed by head", &call, packed_place);
    project_query(&call, 0);
    check_place("Q of a step", &call, query_place);
    engine_close();
    return check_done();
}
