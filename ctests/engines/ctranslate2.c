/* CTranslate2: [batch, heads, time, depth] for each layer at the first decode step; shared heads at a first copy. */
#include "engine.h"

/* NLLB-200-distilled-600M's widths; then as if its 16 heads shared 4 of K and V. */
enum { layers = 2, model_width = 1024, num_heads = 16, depth = 64, batch = 3, beams = 2, time = 20 };

static void *keys[layers], *values[layers], *queries;
static const void *memory, *states;
static int64_t copies = 1; /* query heads that share one of K and V */

/* snippet: ctranslate2-spec */
static void nllb_spec(xqkv_spec *model) {
    xqkv_spec_init(model, sizeof *model);
    model->weight_dtype = XQKV_DTYPE_F16;
    model->layer_count = layers;
    model->decoder_width = model->encoder_width = model_width;
    model->query_heads = num_heads;
    model->key_value_heads = num_heads / copies;
    model->head_width = depth;
    model->query_bias = model->key_bias = model->value_bias = 1;
}
/* end of snippet */

/* snippet: ctranslate2-first-step */
static void fill_memory(xqkv_forward *call) {
    xqkv_forward_init(call, sizeof *call);
    call->layer_count = layers;
    call->encoder.data = memory; /* [batch, time, model_width], not tiled for the beams */
    call->encoder.rows = batch * time, call->encoder.dtype = XQKV_DTYPE_F16;
    call->key.layer_data = keys, call->value.layer_data = values; /* each layer's StorageView */
    xqkv_view *views[] = {&call->key, &call->value};
    for (int at = 0; at < 2; at++) {
        views[at]->dtype = XQKV_DTYPE_F16;
        views[at]->row_stride = depth;
        views[at]->head_stride = copies * time * depth; /* the first of each head's copies */
        views[at]->group_rows = time; /* a group is a sequence of the batch */
        views[at]->group_stride = (int64_t)num_heads * time * depth;
    }
}
/* end of snippet */

/* snippet: ctranslate2-decode */
static void project_query(xqkv_forward *call, int layer) {
    xqkv_forward_init(call, sizeof *call);
    call->layer = layer;
    call->decoder.data = states; /* [batch * beams, 1, model_width] */
    call->decoder.rows = batch * beams, call->decoder.dtype = XQKV_DTYPE_F16;
    call->query.data = queries, call->query.dtype = XQKV_DTYPE_F16;
}
/* end of snippet */

static void *memory_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    uint16_t *cache = part == KEY ? keys[layer] : values[layer];
    int64_t sequence = row / time, step = row % time;
    return cache + ((sequence * num_heads + head * copies) * time + step) * depth + lane;
}

static void *query_place(int part, int64_t layer, int64_t row, int64_t head, int64_t lane) {
    (void)part, (void)layer;
    return (uint16_t *)queries + (row * num_heads + head) * depth + lane;
}

static void check_copies(int64_t count, const char *name) {
    xqkv_forward call;
    copies = count;
    nllb_spec(&spec);
    engine_open();
    engine_release();
    for (int layer = 0; layer < layers; layer++) {
        keys[layer] = engine_buffer(batch * num_heads * time * depth, XQKV_DTYPE_F16, 0xff);
        values[layer] = engine_buffer(batch * num_heads * time * depth, XQKV_DTYPE_F16, 0xff);
    }
    queries = engine_buffer(batch * beams * num_heads * depth, XQKV_DTYPE_F16, 0xff);
    fill_memory(&call);
    check_place(name, &call, memory_place);
    project_query(&call, 1);
    check_place("a decode step of all beams", &call, query_place);
    engine_close();
}

int main(void) {
    nllb_spec(&spec);
    memory = engine_input(KEY, batch * time, XQKV_DTYPE_F16);
    states = engine_input(QUERY, batch * beams, XQKV_DTYPE_F16);
    check_copies(1, "the first decode step");
    check_copies(4, "grouped heads, each at the first of its copies");
    return check_done();
}
