/* llama.cpp's T5: a cross cache, which it does not have yet, filled once behind the encoder; then Q only. */
#include "engine.h"

/* Flan-T5-small's widths: the heads' 384 columns are not the model's 512. */
enum { n_layer = 3, n_embd = 512, n_head = 6, n_embd_head = 64, n_embd_gqa = n_head * n_embd_head, n_enc = 77,
       kv_size = 256, n_tokens = 3 };

static void *k_l[n_layer], *v_l[n_layer], *q_cur;
static const void *embd_enc, *cur;
static int embd_type;

/* snippet: llama-spec */
static void t5_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_F16;
    model->layer_count = n_layer;
    model->decoder_width = model->encoder_width = n_embd;
    model->query_heads = model->key_value_heads = n_head;
    model->head_width = n_embd_head; /* no bias, and T5's scale is 1 */
}
/* end of snippet */

/* snippet: llama-flash */
static void fill_cross_flash(xqkv_forward *call) {
    xqkv_forward_init(call, sizeof *call);
    call->layer_count = n_layer;
    call->encoder.data = embd_enc; /* cross.v_embd */
    call->encoder.rows = n_enc, call->encoder.dtype = embd_type;
    call->key.layer_data = k_l, call->value.layer_data = v_l; /* the data of each layer's tensor */
    call->key.dtype = call->value.dtype = XQKV_DTYPE_F16;
}
/* end of snippet */

/* snippet: llama-transposed */
static void fill_cross_transposed(xqkv_forward *call) {
    fill_cross_flash(call);
    call->value.row_stride = 1; /* v_trans: a lane's cells are neighbours */
    call->value.width_stride = kv_size;
    call->value.head_stride = (int64_t)kv_size * n_embd_head;
}
/* end of snippet */

/* snippet: llama-decode */
static void project_query(xqkv_forward *call, int il) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = il;
    call->decoder.data = cur;
    call->decoder.rows = n_tokens, call->decoder.dtype = embd_type;
    call->query.data = q_cur, call->query.dtype = XQKV_DTYPE_F32;
}
/* end of snippet */

static void *flash_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    uint16_t *cache = part == KEY ? k_l[layer] : v_l[layer];
    return cache + row * n_embd_gqa + head * n_embd_head + lane;
}

static void *transposed_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    if (part == KEY) return flash_place(part, layer, row, head, lane);
    return (uint16_t *)v_l[layer] + (head * n_embd_head + lane) * kv_size + row;
}

static void *query_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)part, (void)layer;
    return (float *)q_cur + (row * n_head + head) * n_embd_head + lane;
}

/* V of a layer before its K, and the layers not in order: nothing may depend on where an allocator puts them. */
static void allocate(void) {
    engine_release();
    for (int layer = n_layer - 1; layer >= 0; layer--) {
        v_l[layer] = engine_buffer(n_embd_gqa * kv_size, XQKV_DTYPE_F16, 0);
        k_l[layer] = engine_buffer(n_embd_gqa * kv_size, XQKV_DTYPE_F16, 0);
    }
    q_cur = engine_buffer(n_tokens * n_embd_gqa, XQKV_DTYPE_F32, 0xff);
}

int main(void) {
    xqkv_forward call;
    t5_spec(&spec);
    engine_open();
    embd_type = engine_rows_dtype(XQKV_DTYPE_F32);
    embd_enc = engine_input(KEY, n_enc, embd_type), cur = engine_input(QUERY, n_tokens, embd_type);
    allocate();
    fill_cross_flash(&call);
    check_place("flash: a tensor for each layer", &call, flash_place);
    project_query(&call, 1);
    check_place("a decode step", &call, query_place);
    allocate();
    fill_cross_transposed(&call);
    check_place("without flash: V is transposed", &call, transposed_place);
    engine_close();
    return check_done();
}
