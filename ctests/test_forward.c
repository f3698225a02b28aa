/* The three calls, and everything about a call that is refused. */
#include "fixture.h"

static xqkv_projection *projection;

static void a_decode_step_runs_q_and_leaves_key_and_value_alone(void) {
    static outputs out;
    for (int rows = 1; rows <= 9; rows++) {
        xqkv_forward call = test_call(&out, rows, 0);
        poison(&out);
        CHECK_OK(run_forward(projection, &call, NULL, &error));
        CHECK(has_rows(&out, QUERY, 0, rows, 0) && isnan(out.parts[KEY][0]) && isnan(out.parts[VALUE][0]));
    }
}

static void prefill_runs_all_three_on_rows_of_their_own(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 3, 33);
    poison(&out);
    call.layer = 1;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(has_rows(&out, QUERY, 1, 3, 0) && has_rows(&out, KEY, 1, 33, 0) && has_rows(&out, VALUE, 1, 33, 0));
}

static void a_cache_fill_runs_all_layers_at_once(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 0, 8);
    poison(&out);
    call.layer_count = LAYERS;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int at = 0; at < LAYERS * 8 * 6; at++)
        CHECK(out.parts[KEY][at] == test_result(KEY, at / 48, at / 6 % 8, at % 6, 0));
    for (int at = 0; at < LAYERS * 8 * 4; at++)
        CHECK(out.parts[VALUE][at] == test_result(VALUE, at / 32, at / 4 % 8, at % 4, 0));
    CHECK(isnan(out.parts[QUERY][0]) && isnan(out.parts[KEY][LAYERS * 8 * 6]));
}

/* A cache whose layers lie apart, as an engine's does that has room for more rows. */
static void a_cache_fill_leaves_what_lies_between_layers(void) {
    enum { ROOM = 50 };
    static outputs out;
    xqkv_forward call = test_call(&out, 0, 8);
    poison(&out);
    call.layer_count = LAYERS, call.key.layer_stride = ROOM * 6, call.value.layer_stride = ROOM * 4;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int part = KEY; part <= VALUE; part++)
        for (int at = 0; at < LAYERS * ROOM * test_columns(part); at++) {
            int columns = test_columns(part), layer = at / columns / ROOM, row = at / columns % ROOM;
            float found = out.parts[part][at];
            CHECK(row < 8 ? found == test_result(part, layer, row, at % columns, 0) : isnan(found));
        }
}

static void scales_multiply_the_sum_and_its_bias(void) {
    static outputs out;
    xqkv_context *context = test_context(1);
    xqkv_spec spec = test_spec();
    xqkv_projection *scaled = NULL;
    spec.query_scale = 0.125f, spec.key_scale = -2, spec.value_scale = 4;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &scaled, &error));
    load(scaled, 0);
    xqkv_forward call = test_call(&out, 2, 2);
    CHECK_OK(run_forward(scaled, &call, NULL, &error));
    for (int part = QUERY; part <= VALUE; part++)
        for (int at = 0; at < 2 * test_columns(part); at++) {
            float scale = part == QUERY ? 0.125f : part == KEY ? -2 : 4;
            CHECK(out.parts[part][at] == scale * test_result(part, 0, at / test_columns(part), at % test_columns(part), 0));
        }
    CHECK_OK(xqkv_projection_destroy(scaled, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

static void not_a_number_stays_in_its_row(void) {
    static outputs out;
    static float rows[3 * DECODER_WIDTH];
    memcpy(rows, test_rows(QUERY), sizeof rows);
    rows[DECODER_WIDTH + 2] = NAN;
    xqkv_forward call = test_call(&out, 3, 0);
    call.decoder.data = rows;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int at = 0; at < 3 * 12; at++) CHECK(isnan(out.parts[QUERY][at]) == (at / 12 == 1));
}

static void bad_calls_are_refused(void) {
    static int something;
    CALL_REFUSED(projection, flags, 16, XQKV_STATUS_INVALID_ARGUMENT, "flags");
    CALL_REFUSED(projection, layer, -1, XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer -1");
    CALL_REFUSED(projection, layer, LAYERS, XQKV_STATUS_LAYER_OUT_OF_RANGE, "layers 0 to 1");
    CALL_REFUSED(projection, layer, INT64_MAX, XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer");
    CALL_REFUSED(projection, layer_count, 2, XQKV_STATUS_INVALID_ARGUMENT, "decoder rows");
    CALL_REFUSED(projection, layer_count, -1, XQKV_STATUS_INVALID_ARGUMENT, "layer_count is -1");
    if (!on_cuda()) {
        CALL_REFUSED(projection, stream, &something, XQKV_STATUS_NOT_SUPPORTED, "stream");
        CALL_REFUSED(projection, wait_event, &something, XQKV_STATUS_NOT_SUPPORTED, "wait_event");
        CALL_REFUSED(projection, signal_event, &something, XQKV_STATUS_NOT_SUPPORTED, "signal_event");
    }
    CALL_REFUSED(projection, plan, (const xqkv_plan *)(const void *)&something, XQKV_STATUS_INVALID_HANDLE, "plan");
    CALL_REFUSED(projection, workspace_bytes, -1, XQKV_STATUS_INVALID_ARGUMENT, "workspace_bytes");
    CALL_REFUSED(projection, flags, UINT32_MAX, XQKV_STATUS_INVALID_ARGUMENT, "flags");
    CALL_REFUSED(projection, layer, INT64_MIN, XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer");
    CALL_REFUSED(projection, layer_count, INT64_MAX, XQKV_STATUS_INVALID_ARGUMENT, "layer_count");
}

static void nulls_and_sizes_are_refused(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 3, 4);
    poison(&out);
    CHECK_SIZES(xqkv_forward, call, run_forward(projection, &call, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "projection", run_forward(NULL, &call, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "forward", run_forward(projection, NULL, NULL, &error));
    CHECK(is_poisoned(&out));
    CHECK_OK(run_forward(projection, &call, NULL, NULL));
    for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 0, part == QUERY ? 3 : 4, 0));
    CHECK(xqkv_forward_init(NULL, sizeof(xqkv_forward)) == XQKV_STATUS_NULL_ARGUMENT);
}

static void layers_past_the_end_of_a_fill_are_refused(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 0, 4);
    poison(&out);
    call.layer = 1, call.layer_count = 2;
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer_count 2", run_forward(projection, &call, NULL, &error));
    call.layer = 0, call.layer_count = INT64_MIN;
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer_count", run_forward(projection, &call, NULL, &error));
    CHECK(is_poisoned(&out));
}

/* The host's; on CUDA it is for using. */
static void a_lent_workspace_is_left_alone(void) {
    static outputs out;
    static unsigned char workspace[256] __attribute__((aligned(256)));
    xqkv_forward call = test_call(&out, 3, 4);
    memset(workspace, 0xee, sizeof workspace);
    call.workspace = workspace, call.workspace_bytes = sizeof workspace;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (size_t at = 0; at < sizeof workspace; at++) CHECK(workspace[at] == 0xee);
}

int main(void) {
    projection = ready_projection(2);
    a_decode_step_runs_q_and_leaves_key_and_value_alone();
    prefill_runs_all_three_on_rows_of_their_own();
    a_cache_fill_runs_all_layers_at_once();
    a_cache_fill_leaves_what_lies_between_layers();
    scales_multiply_the_sum_and_its_bias();
    not_a_number_stays_in_its_row();
    bad_calls_are_refused();
    nulls_and_sizes_are_refused();
    layers_past_the_end_of_a_fill_are_refused();
    if (!on_cuda()) a_lent_workspace_is_left_alone();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return check_done();
}
