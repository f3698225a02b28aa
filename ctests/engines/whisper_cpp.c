/* whisper.cpp: K and V of all layers of a window go into kv_cross in one call; a decode step has Q only. */
#include "engine.h"

/* Whisper-tiny's text model on a window shortened by audio_ctx. */
enum { n_layer = 4, n_state = 384, n_head = 6, n_ctx = 300, n_ctx_pad = 512, n_tokens = 5 };

static void *cross_k, *cross_v, *Qcur;
static const void *embd_enc, *cur;
static int embd_type;

/* snippet: whisper-spec */
static void whisper_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_F16;
    model->layer_count = n_layer;
    model->decoder_width = model->encoder_width = n_state;
    model->query_heads = model->key_value_heads = n_head;
    model->head_width = n_state / n_head;
    model->query_bias = model->value_bias = 1; /* and no key bias */
    model->key_scale = powf((float)model->head_width, -0.25f); /* whisper.cpp's KQscale */
    model->query_scale = model->key_scale; /* the softmax then has 1; leave it 0 and the softmax as it is */
}
/* end of snippet */

/* snippet: whisper-flash */
static void fill_cross_flash(xqkv_forward *call) {
    xqkv_forward_init(call, sizeof *call);
    call->layer_count = n_layer;
    call->key.data = cross_k, call->value.data = cross_v; /* kv_cross.k and .v */
    call->key.dtype = call->value.dtype = XQKV_DTYPE_F16;
    call->key.layer_stride = call->value.layer_stride = (int64_t)n_state * n_ctx_pad;
    call->encoder.data = embd_enc; /* f32 on the host, f16 on CUDA */
    call->encoder.rows = n_ctx, call->encoder.dtype = embd_type;
}
/* end of snippet */

/* snippet: whisper-transposed */
static void fill_cross_transposed(xqkv_forward *call) {
    fill_cross_flash(call);
    call->key.layer_stride = call->value.layer_stride = (int64_t)n_state * n_ctx;
    call->value.row_stride = 1; /* a row of encoder states is a column here */
    call->value.width_stride = n_ctx;
    call->value.head_stride = (int64_t)n_ctx * (n_state / n_head);
}
/* end of snippet */

/* snippet: whisper-decode */
static void project_query(xqkv_forward *call, int il) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = il;
    call->query.data = Qcur; /* [n_tokens][n_state], in f32 as ggml_mul_mat leaves it */
    call->query.dtype = XQKV_DTYPE_F32;
    call->decoder.data = cur;
    call->decoder.rows = n_tokens, call->decoder.dtype = embd_type;
}
/* end of snippet */

/* As the views Kcross and Vcross of the decoder's graph. */
static void *flash_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    uint16_t *cache = part == KEY ? cross_k : cross_v;
    return cache + layer * n_state * n_ctx_pad + row * n_state + head * (n_state / n_head) + lane;
}

static void *transposed_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    int64_t column = head * (n_state / n_head) + lane;
    if (part == KEY) return (uint16_t *)cross_k + (layer * n_ctx + row) * n_state + column;
    return (uint16_t *)cross_v + (layer * n_state + column) * n_ctx + row;
}

static void *query_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)part, (void)layer;
    return (float *)Qcur + row * n_state + head * (n_state / n_head) + lane;
}

static void padding_is_zero(void) {
    static const uint16_t zeros[(n_ctx_pad - n_ctx) * n_state];
    for (int64_t il = 0; il < n_layer; il++) {
        int64_t behind = (il * n_ctx_pad + n_ctx) * n_state;
        CHECK(memcmp((uint16_t *)cross_k + behind, zeros, sizeof zeros) == 0);
        CHECK(memcmp((uint16_t *)cross_v + behind, zeros, sizeof zeros) == 0);
    }
}

int main(void) {
    xqkv_forward call;
    whisper_spec(&spec);
    CHECK(fabsf(spec.query_scale * spec.key_scale - 1 / 8.0f) < 1e-7f);
    engine_open();
    embd_type = engine_rows_dtype(XQKV_DTYPE_F32);
    embd_enc = engine_input(KEY, n_ctx, embd_type), cur = engine_input(QUERY, n_tokens, embd_type);
    cross_k = engine_buffer(n_layer * n_state * n_ctx_pad, XQKV_DTYPE_F16, 0);
    cross_v = engine_buffer(n_layer * n_state * n_ctx_pad, XQKV_DTYPE_F16, 0);
    Qcur = engine_buffer(n_tokens * n_state, XQKV_DTYPE_F32, 0xff);
    fill_cross_flash(&call);
    check_place("flash: K and V of all layers", &call, flash_place);
    padding_is_zero();
    project_query(&call, 2);
    check_place("a decode step", &call, query_place);
    engine_release();
    cross_k = engine_buffer(n_layer * n_state * n_ctx, XQKV_DTYPE_F16, 0xff);
    cross_v = engine_buffer(n_layer * n_state * n_ctx, XQKV_DTYPE_F16, 0xff);
    fill_cross_transposed(&call);
    check_place("without flash: V is transposed", &call, transposed_place);
    engine_close();
    return check_done();
}
