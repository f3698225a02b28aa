/* The library's own time for a planned forward: median nanoseconds of blocks of calls over libraries that do nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xqkv.h>

enum { WIDTH = 1280, HEADS = 20, HEAD_WIDTH = 64, ROWS = 64, BLOCKS = 501, CALLS = 2000 };

static xqkv_error error;

static void must(xqkv_status status) {
    if (status != XQKV_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", xqkv_status_name(status), error.message);
        exit(1);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static xqkv_projection *projection(const xqkv_context *context) {
    static uint16_t weight[HEADS * HEAD_WIDTH * WIDTH];
    static const int parts[] = {XQKV_PART_QUERY, XQKV_PART_KEY, XQKV_PART_VALUE};
    xqkv_projection *made;
    xqkv_update *update;
    xqkv_tensor tensor;
    xqkv_spec spec;
    must(xqkv_spec_init(&spec, sizeof spec));
    spec.weight_dtype = XQKV_DTYPE_BF16, spec.layer_count = 1, spec.decoder_width = spec.encoder_width = WIDTH;
    spec.query_heads = spec.key_value_heads = HEADS, spec.head_width = HEAD_WIDTH;
    spec.query_bias = spec.value_bias = 1;
    must(xqkv_projection_create(context, &spec, NULL, &made, &error));
    must(xqkv_update_begin(made, &update, &error));
    must(xqkv_tensor_init(&tensor, sizeof tensor));
    tensor.dtype = XQKV_DTYPE_BF16, tensor.data = weight, tensor.rows = HEADS * HEAD_WIDTH;
    for (int part = 0; part < 3; part++) {
        tensor.columns = WIDTH;
        must(xqkv_update_put(update, 0, parts[part], XQKV_KIND_WEIGHT, &tensor, &error));
        tensor.columns = 1;
        if (part != 1) must(xqkv_update_put(update, 0, parts[part], XQKV_KIND_BIAS, &tensor, &error));
    }
    must(xqkv_update_commit(update, NULL, &error));
    return made;
}

static double median(const xqkv_projection *made, const xqkv_forward *call) {
    static double blocks[BLOCKS];
    for (int block = 0; block < BLOCKS; block++) {
        double begin = now();
        for (int at = 0; at < CALLS; at++) must(xqkv_projection_forward(made, call, NULL, &error));
        blocks[block] = (now() - begin) / CALLS;
    }
    qsort(blocks, BLOCKS, sizeof *blocks, ascending);
    return blocks[BLOCKS / 2];
}

int main(void) {
    static uint16_t rows[ROWS * WIDTH] = {0}, results[3][ROWS * HEADS * HEAD_WIDTH];
    xqkv_context_options options;
    xqkv_context *context;
    xqkv_forward call;
    xqkv_plan *plan;
    must(xqkv_context_options_init(&options, sizeof options));
    options.backend = XQKV_BACKEND_CUDA;
    must(xqkv_context_create(&options, &context, &error));
    xqkv_projection *made = projection(context);
    must(xqkv_forward_init(&call, sizeof call));
    call.decoder.data = rows, call.decoder.rows = ROWS, call.decoder.dtype = XQKV_DTYPE_BF16;
    call.encoder = call.decoder;
    xqkv_view *views[] = {&call.query, &call.key, &call.value};
    for (int part = 0; part < 3; part++) views[part]->data = results[part], views[part]->dtype = XQKV_DTYPE_BF16;
    must(xqkv_plan_create(made, &call, NULL, &plan, &error));
    call.plan = plan;
    const xqkv_input encoder = call.encoder;
    for (int fewer = 0; fewer < 2; fewer++) {
        const char *rows_are = fewer ? "fewer rows than planned" : "as many rows as planned";
        call.encoder = encoder;
        call.decoder.rows = call.encoder.rows = ROWS - 7 * fewer;
        printf("prefill (Q, and K and V as one), %s: %.1f ns\n", rows_are, median(made, &call));
        call.encoder.data = NULL;
        printf("decode (Q), %s: %.1f ns\n", rows_are, median(made, &call));
    }
    must(xqkv_plan_destroy(plan, &error));
    must(xqkv_projection_destroy(made, &error));
    must(xqkv_context_destroy(context, &error));
    return 0;
}
