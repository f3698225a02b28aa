/* What the programs of this folder share: a projection of an engine's shapes, the engine's memory with canaries around
   each buffer, and the check of one place where the engine would call. A program says twice where results go: as views,
   in the snippet that docs/engines.md shows, and as the address that the engine's own code would read. */
#ifndef ENGINE_H
#define ENGINE_H

#include "../fixture.h"

enum { CANARY_BYTES = 256, MEMORY_BYTES = 1 << 23, MOST_LAYERS = 4, MOST_PLAIN_BYTES = 1 << 21 };

static xqkv_spec spec;
static xqkv_projection *projection;
static int64_t ranks = 1, rank; /* heads are cut evenly */

/* Multiples of a power of two, so small that a sum of their products is exact in f32 in any order. */
static inline float engine_number(int64_t one, int64_t two, int64_t three, float unit) {
    uint32_t bits = (uint32_t)one * 2654435761u ^ (uint32_t)two * 2246822519u ^ (uint32_t)three * 3266489917u;
    bits = (bits ^ bits >> 15) * 2654435769u;
    bits = (bits ^ bits >> 13) * 2246822519u;
    return (float)((int)(bits >> 28) - 8) * unit;
}

static inline float engine_weight(int part, int64_t layer, int64_t output, int64_t input) {
    return engine_number(output, input, layer * 3 + part, 1 / 64.0f);
}

static inline float engine_bias(int part, int64_t layer, int64_t output) {
    int has_bias = part == QUERY ? spec.query_bias : part == KEY ? spec.key_bias : spec.value_bias;
    return has_bias ? engine_number(output, 77, layer * 3 + part, 1 / 16.0f) : 0;
}

static inline float engine_row(int part, int64_t row, int64_t input) {
    return engine_number(row, input, part == QUERY ? 1000 : 1001, 1 / 16.0f);
}

static inline int64_t engine_inputs(int part) { return part == QUERY ? spec.decoder_width : spec.encoder_width; }

/* This rank's heads, and their width. */
static inline int64_t engine_heads(int part) {
    return (part == QUERY ? spec.query_heads : spec.key_value_heads) / ranks;
}

static inline int64_t engine_width(int part) {
    return part == VALUE && spec.value_head_width > 0 ? spec.value_head_width : spec.head_width;
}

static inline int64_t engine_columns(int part) { return engine_heads(part) * engine_width(part); }

static inline void engine_put(xqkv_update *update, int64_t layer, int part, int kind) {
    int64_t outputs = engine_columns(part) * ranks, inputs = kind == XQKV_KIND_WEIGHT ? engine_inputs(part) : 1;
    char *data = malloc((size_t)(outputs * inputs) * sizeof(float));
    for (int64_t at = 0; at < outputs * inputs; at++) {
        float number = kind == XQKV_KIND_WEIGHT ? engine_weight(part, layer, at / inputs, at % inputs)
                                                : engine_bias(part, layer, at);
        store(data, spec.weight_dtype, at, number);
    }
    xqkv_tensor tensor = test_tensor(data, 0, 0);
    tensor.dtype = spec.weight_dtype, tensor.rows = outputs, tensor.columns = inputs;
    CHECK_OK(xqkv_update_put(update, layer, test_parts[part], kind, &tensor, &error));
    free(data);
}

/* A projection of `spec` on this rank of `ranks`, with all its weights. */
static inline void engine_open(void) {
    xqkv_context *context = test_context(2);
    xqkv_projection_options options;
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.rank = rank, options.rank_count = ranks;
    CHECK_OK(xqkv_projection_create(context, &spec, &options, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    const int32_t biases[] = {spec.query_bias, spec.key_bias, spec.value_bias};
    for (int64_t layer = 0; layer < spec.layer_count; layer++)
        for (int part = QUERY; part <= VALUE; part++) {
            engine_put(update, layer, part, XQKV_KIND_WEIGHT);
            if (biases[part]) engine_put(update, layer, part, XQKV_KIND_BIAS);
        }
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

static inline void engine_close(void) { CHECK_OK(xqkv_projection_destroy(projection, &error)); }

/* Hidden states of one side, packed. */
static inline const void *engine_input(int part, int64_t rows, int dtype) {
    static _Alignas(256) char bytes[2][1 << 20];
    int64_t count = rows * engine_inputs(part);
    CHECK(count * xqkv_dtype_bytes(dtype) <= (int64_t)sizeof bytes[0]);
    for (int64_t at = 0; at < count; at++)
        store(bytes[part != QUERY], dtype, at, engine_row(part, at / engine_inputs(part), at % engine_inputs(part)));
    return bytes[part != QUERY];
}

/* The engine's memory: what no buffer has is canaries. */
static _Alignas(256) unsigned char engine_bytes[MEMORY_BYTES];
static int64_t engine_bytes_taken;

/* All of it is free again. */
static inline void engine_release(void) {
    memset(engine_bytes, 0xC5, sizeof engine_bytes);
    engine_bytes_taken = CANARY_BYTES;
}

/* A buffer of elements, each byte of it `fill`. */
static inline void *engine_buffer(int64_t elements, int dtype, int fill) {
    int64_t bytes = elements * xqkv_dtype_bytes(dtype);
    unsigned char *buffer = engine_bytes + engine_bytes_taken;
    if (engine_bytes_taken == 0) engine_release(), buffer = engine_bytes + engine_bytes_taken;
    engine_bytes_taken += (bytes + 2 * CANARY_BYTES - 1) / CANARY_BYTES * CANARY_BYTES;
    if (!CHECK(engine_bytes_taken <= MEMORY_BYTES)) exit(EXIT_FAILURE);
    return memset(buffer, fill, (size_t)bytes);
}

/* The views of a call whose memory is the device's copy of the program's. */
static inline void engine_move(const mirror *copy, xqkv_view *view, void **layers, int64_t count) {
    view->data = mirrored(copy, view->data);
    view->slots = mirrored(copy, view->slots);
    for (int64_t layer = 0; view->layer_data != NULL && layer < count; layer++)
        layers[layer] = mirrored(copy, view->layer_data[layer]);
    if (view->layer_data != NULL) view->layer_data = layers;
}

/* One for each concurrent call; the host needs it for slots alone. */
static _Alignas(256) char workspace[1 << 20];

/* Runs a call by a plan made of it, on no more workspace than the plan says it must have. */
static inline xqkv_status engine_planned(const xqkv_forward *call, xqkv_stats *stats) {
    xqkv_plan *plan = NULL;
    xqkv_workspace least;
    xqkv_forward planned = *call;
    CHECK_OK(xqkv_workspace_init(&least, sizeof least));
    CHECK_OK(xqkv_plan_create(projection, call, NULL, &plan, &error));
    CHECK_OK(xqkv_plan_get_workspace(plan, &least, &error));
    CHECK(least.minimum_bytes <= (int64_t)sizeof workspace);
    planned.plan = plan, planned.workspace_bytes = least.minimum_bytes;
    xqkv_status status = xqkv_projection_forward(projection, &planned, stats, &error);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    return status;
}

/* An engine's call in its own memory: planned on CUDA, as its snippet has it on the host. */
static inline xqkv_status engine_forward(const xqkv_forward *call, xqkv_stats *stats) {
    if (!on_cuda()) return xqkv_projection_forward(projection, call, stats, &error);
    void *layers[3][MOST_LAYERS];
    int64_t count = call->layer_count == 0 ? 1 : call->layer_count;
    mirror copy = mirror_open();
    xqkv_forward moved = *call;
    xqkv_view *views[] = {&moved.query, &moved.key, &moved.value};
    moved.decoder.data = mirrored(&copy, call->decoder.data);
    moved.encoder.data = mirrored(&copy, call->encoder.data);
    moved.workspace = mirrored(&copy, workspace);
    for (int part = QUERY; part <= VALUE; part++) engine_move(&copy, views[part], layers[part], count);
    xqkv_status status = engine_planned(&moved, stats);
    mirror_close(&copy);
    return status;
}

static inline const xqkv_view *engine_view(const xqkv_forward *call, int part) {
    return part == QUERY ? &call->query : part == KEY ? &call->key : &call->value;
}

static inline int64_t engine_rows(const xqkv_forward *call, int part) {
    const xqkv_input *input = part == QUERY ? &call->decoder : &call->encoder;
    return input->data == NULL ? 0 : input->rows;
}

static inline int64_t engine_layers(const xqkv_forward *call) { return call->layer_count == 0 ? 1 : call->layer_count; }

/* The same call's results, packed: [layers, rows, heads, width]. */
static unsigned char engine_plain[3][MOST_PLAIN_BYTES];

static inline double engine_result(int part, int64_t layer, int64_t row, int64_t column) {
    const float scales[] = {spec.query_scale, spec.key_scale, spec.value_scale};
    int64_t output = rank * engine_columns(part) + column;
    double sum = (double)engine_bias(part, layer, output), scale = scales[part] == 0 ? 1 : (double)scales[part];
    for (int64_t input = 0; input < engine_inputs(part); input++)
        sum += (double)engine_row(part, row, input) * (double)engine_weight(part, layer, output, input);
    return sum * scale;
}

static inline double element_of(const void *elements, int dtype, int64_t at) {
    uint16_t bits;
    if (dtype == XQKV_DTYPE_F32) return (double)((const float *)elements)[at];
    memcpy(&bits, (const char *)elements + at * 2, 2);
    int fraction_bits = dtype == XQKV_DTYPE_F16 ? 10 : 7, bias = dtype == XQKV_DTYPE_F16 ? 15 : 127;
    int exponent = (bits & 0x7fff) >> fraction_bits, fraction = bits & ((1 << fraction_bits) - 1);
    if (exponent == 2 * bias + 1) return NAN;
    double size = ldexp(fraction + (exponent > 0) * (double)(1 << fraction_bits),
                        (exponent > 0 ? exponent : 1) - bias - fraction_bits);
    return bits & 0x8000 ? -size : size;
}

/* Half a unit in the last place, and what the scale's own rounding adds to it. */
static inline int is_near(double given, double expected, int dtype) {
    int fraction_bits = dtype == XQKV_DTYPE_F16 ? 10 : dtype == XQKV_DTYPE_BF16 ? 7 : 23;
    return fabs(given - expected) <= fabs(expected) * (ldexp(0.5, -fraction_bits) + 3 * ldexp(1, -24)) + ldexp(1, -24);
}

static inline void check_plain_results(const xqkv_forward *call, int part) {
    int64_t rows = engine_rows(call, part), columns = engine_columns(part);
    int64_t count = engine_layers(call) * rows * columns;
    int dtype = engine_view(call, part)->dtype;
    for (int64_t sample = 0; sample < 64 && count > 0; sample++) {
        int64_t at = sample * 7919 * 31 % count, layer = at / (rows * columns), row = at / columns % rows;
        double expected = engine_result(part, call->layer + layer, row, at % columns);
        double given = element_of(engine_plain[part], dtype, at);
        snprintf(check_detail, sizeof check_detail, "part %d, element %lld is %g, expected %g", part, (long long)at,
                 given, expected);
        CHECK(is_near(given, expected, dtype));
    }
}

/* Runs the call with packed views, and holds some of the results against f64. */
static inline void engine_run_plain(const xqkv_forward *call) {
    xqkv_forward plain = *call;
    xqkv_view *views[] = {&plain.query, &plain.key, &plain.value};
    memset(engine_plain, 0xff, sizeof engine_plain);
    for (int part = QUERY; part <= VALUE; part++) {
        int64_t elements = engine_layers(call) * engine_rows(call, part) * engine_columns(part);
        CHECK(elements * 4 <= MOST_PLAIN_BYTES || elements * xqkv_dtype_bytes(views[part]->dtype) <= MOST_PLAIN_BYTES);
        xqkv_view packed = {.data = engine_plain[part], .dtype = views[part]->dtype};
        if (engine_rows(call, part) > 0) *views[part] = packed;
    }
    CHECK_OK(engine_forward(&plain, NULL));
    for (int part = QUERY; part <= VALUE; part++) check_plain_results(call, part);
}

/* Where the engine's own code would look for an element; NULL if this row is to be left out. */
typedef void *(*engine_place)(int part, int64_t layer, int64_t row, int64_t head, int64_t lane);

/* From the shapes alone. The host leaves out rows without a place; CUDA cannot see which they are. */
static inline int64_t engine_necessary(const xqkv_forward *call, engine_place place) {
    int64_t sum = 0;
    for (int part = QUERY; part <= VALUE; part++)
        for (int64_t row = 0; row < engine_rows(call, part); row++)
            if (on_cuda() || place(part, 0, row, 0, 0) != NULL)
                sum += engine_layers(call) * engine_columns(part) * engine_inputs(part);
    return sum;
}

/* Bits on the host; elsewhere a layout may have its own way to add a bias. */
static inline int engine_same(const void *given, int part, int64_t at, int dtype) {
    int64_t bytes = xqkv_dtype_bytes(dtype);
    const unsigned char *expected = engine_plain[part] + at * bytes;
    if (!on_cuda()) return memcmp(given, expected, (size_t)bytes) == 0;
    double near = element_of(expected, dtype, 0);
    return fabs(element_of(given, dtype, 0) - near) <= fabs(near) * ldexp(1, dtype == XQKV_DTYPE_BF16 ? -6 : -9);
}

/* Compares each element of a part, and puts those into `untouched`, which then has all that may differ in it. */
static inline int64_t engine_compare(const xqkv_forward *call, int part, engine_place place, unsigned char *untouched) {
    int64_t rows = engine_rows(call, part), columns = engine_columns(part), width = engine_width(part), wrong = 0;
    int dtype = engine_view(call, part)->dtype;
    for (int64_t at = 0; at < engine_layers(call) * rows * columns; at++) {
        int64_t layer = at / (rows * columns), row = at / columns % rows, column = at % columns;
        unsigned char *given = place(part, layer, row, column / width, column % width);
        if (given == NULL) continue;
        if (given < engine_bytes || given >= engine_bytes + MEMORY_BYTES) return INT64_MAX;
        wrong += !engine_same(given, part, at, dtype);
        memcpy(untouched + (given - engine_bytes), given, (size_t)xqkv_dtype_bytes(dtype));
    }
    return wrong;
}

/* One forward fills in one place of the engine: each element where the engine reads it, the rest of memory as it was,
   and no multiply-add more than necessary. */
static inline void check_place(const char *name, const xqkv_forward *call, engine_place place) {
    unsigned char *untouched = malloc(MEMORY_BYTES);
    xqkv_stats stats;
    engine_run_plain(call);
    memcpy(untouched, engine_bytes, MEMORY_BYTES);
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    CHECK_OK(engine_forward(call, &stats));
    for (int part = QUERY; part <= VALUE; part++) {
        int64_t wrong = engine_compare(call, part, place, untouched);
        snprintf(check_detail, sizeof check_detail, "%lld elements of part %d", (long long)wrong, part);
        check(wrong == 0, name, __FILE__, __LINE__);
    }
    check(memcmp(untouched, engine_bytes, MEMORY_BYTES) == 0, name, __FILE__, __LINE__);
    int64_t necessary = engine_necessary(call, place);
    snprintf(check_detail, sizeof check_detail, "%s: %lld multiply-adds, %lld necessary", name,
             (long long)stats.multiply_adds, (long long)necessary);
    CHECK(stats.multiply_adds == necessary && necessary > 0);
    free(untouched);
}

/* What the engine has its rows in, or on CUDA the weights' dtype, which it would cast them to. */
static inline int engine_rows_dtype(int dtype) { return on_cuda() ? spec.weight_dtype : dtype; }

#endif
