/* Plans: calls of their shape run by them, all others are refused; and what weights take and give back. */
#include "fixture.h"

static xqkv_context *context;
static xqkv_projection *projection;

static xqkv_plan *made(const xqkv_forward *example, const xqkv_plan_options *options) {
    xqkv_plan *plan = NULL;
    CHECK_OK(xqkv_plan_create(projection, example, options, &plan, &error));
    return plan;
}

static xqkv_plan_options defaults(void) {
    xqkv_plan_options options;
    CHECK_OK(xqkv_plan_options_init(&options, sizeof options));
    return options;
}

static void a_plan_runs_every_number_of_rows_up_to_its_own(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 9, 33);
    xqkv_plan *plan = made(&call, NULL);
    call.plan = plan;
    for (int rows = 1; rows <= 9; rows++) {
        call.decoder.rows = rows, call.encoder.rows = 34 - rows;
        poison(&out);
        CHECK_OK(run_forward(projection, &call, NULL, &error));
        CHECK(has_rows(&out, QUERY, 0, rows, 0) && has_rows(&out, KEY, 0, 34 - rows, 0));
        CHECK(has_rows(&out, VALUE, 0, 34 - rows, 0));
    }
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

/* What a layer would be packed to grows with the rows, and layers with addresses of their own do not step by it. */
static void layers_of_their_own_may_have_fewer_rows_than_planned(void) {
    static outputs out;
    void *keys[LAYERS] = {out.parts[KEY] + 300, out.parts[KEY]}, *values[LAYERS] = {out.parts[VALUE], out.parts[VALUE] + 200};
    xqkv_forward call = test_call(&out, 0, 9);
    call.layer_count = LAYERS, call.key.data = call.value.data = NULL;
    call.key.layer_data = keys, call.value.layer_data = values;
    xqkv_plan *plan = made(&call, NULL);
    call.plan = plan, call.encoder.rows = 5;
    poison(&out);
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(out.parts[KEY][300 + 4 * 6] == test_result(KEY, 0, 4, 0, 0) && isnan(out.parts[KEY][300 + 5 * 6]));
    CHECK(out.parts[KEY][4 * 6] == test_result(KEY, 1, 4, 0, 0) && out.parts[VALUE][200] == test_result(VALUE, 1, 0, 0, 0));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void a_plan_for_both_sides_serves_one_of_them_and_any_layer(void) {
    static outputs out;
    xqkv_stats stats;
    xqkv_forward call = test_call(&out, 5, 7);
    xqkv_plan *plan = made(&call, NULL);
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    call.plan = plan, call.encoder.data = NULL, call.layer = 1;
    poison(&out);
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    CHECK(has_rows(&out, QUERY, 1, 5, 0) && isnan(out.parts[KEY][0]));
    CHECK(stats.plans_made == 0 && stats.multiply_adds == 5 * 12 * DECODER_WIDTH && stats.matmuls == 1);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void a_plan_survives_a_commit(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 5, 7);
    xqkv_plan *plan = made(&call, NULL);
    call.plan = plan;
    for (int generation = 1; generation >= 0; generation--) {
        load(projection, generation);
        poison(&out);
        CHECK_OK(run_forward(projection, &call, NULL, &error));
        CHECK(has_rows(&out, QUERY, 0, 5, generation) && has_rows(&out, VALUE, 0, 7, generation));
    }
    CHECK_OK(xqkv_plan_destroy(plan, &error));
}

static void a_timed_and_an_unaligned_plan_run_as_well(void) {
    static outputs out;
    xqkv_plan_options options = defaults();
    xqkv_forward call = test_call(&out, 5, 7);
    options.flags = XQKV_PLAN_FLAG_TIMED, options.workspace_limit = -1;
    xqkv_plan *timed = made(&call, &options);
    call.plan = timed;
    poison(&out);
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(has_rows(&out, QUERY, 0, 5, 0) && has_rows(&out, KEY, 0, 7, 0) && has_rows(&out, VALUE, 0, 7, 0));
    CHECK_OK(xqkv_plan_destroy(timed, &error));
    options = defaults(), options.alignment_bytes = 4;
    call.query.data = out.parts[QUERY] + 1;
    xqkv_plan *unaligned = made(&call, &options);
    call.plan = unaligned;
    poison(&out);
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    CHECK(isnan(out.parts[QUERY][0]) && out.parts[QUERY][1] == test_result(QUERY, 0, 0, 0, 0));
    CHECK_OK(xqkv_plan_destroy(unaligned, &error));
}

/* A call of another shape than the plan's: one field of a good one changed. */
#define MISMATCH(given, field, value, word)                                                                  \
    do {                                                                                                     \
        static outputs out;                                                                                  \
        xqkv_forward call = test_call(&out, 3, 4);                                                           \
        poison(&out);                                                                                        \
        call.plan = (given), call.field = (value);                                                            \
        CHECK_REFUSED(XQKV_STATUS_PLAN_MISMATCH, (word), run_forward(projection, &call, NULL, &error));      \
        CHECK(is_poisoned(&out));                                                                            \
    } while (0)

static void calls_of_another_shape_are_refused(void) {
    static outputs planned;
    xqkv_forward call = test_call(&planned, 3, 4);
    xqkv_plan *plan = made(&call, NULL);
    MISMATCH(plan, decoder.rows, 4, "decoder.rows is 4, the plan was made for at most 3");
    MISMATCH(plan, encoder.rows, 5, "encoder.rows is 5");
    MISMATCH(plan, decoder.row_stride, 6, "decoder.row_stride is 6");
    MISMATCH(plan, query.row_stride, 13, "query.row_stride is 13, the plan was made for 12");
    MISMATCH(plan, value.head_stride, 64, "value.head_stride is 64");
    MISMATCH(plan, query.data, out.parts[QUERY] + 1, "16");
    call.encoder.data = NULL;
    xqkv_plan *decode = made(&call, NULL);
    MISMATCH(decode, layer, 1, "without encoder rows");
    xqkv_projection *other = test_projection(context, NULL);
    load(other, 0);
    call.plan = decode;
    CHECK_REFUSED(XQKV_STATUS_PLAN_MISMATCH, "another projection", run_forward(other, &call, NULL, &error));
    CHECK_OK(xqkv_projection_destroy(other, &error));
    CHECK_OK(xqkv_plan_destroy(decode, &error));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "plan", run_forward(projection, &call, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "plan", xqkv_plan_destroy(plan, &error));
    CHECK_OK(xqkv_plan_destroy(NULL, &error));
}

static void workspaces_are_told(void) {
    static outputs out;
    xqkv_workspace workspace, larger;
    xqkv_forward call = test_call(&out, 3, 4);
    xqkv_plan *plan = made(&call, NULL);
    call.encoder.rows = 64;
    xqkv_plan *more = made(&call, NULL);
    CHECK_OK(xqkv_workspace_init(&workspace, sizeof workspace));
    CHECK_OK(xqkv_workspace_init(&larger, sizeof larger));
    CHECK_SIZES(xqkv_workspace, workspace, xqkv_plan_get_workspace(plan, &workspace, &error));
    CHECK_OK(xqkv_plan_get_workspace(plan, &workspace, &error));
    CHECK_OK(xqkv_plan_get_workspace(more, &larger, &error));
    CHECK(workspace.minimum_bytes == 0 && workspace.alignment_bytes == 256);
    CHECK(larger.recommended_bytes >= workspace.recommended_bytes);
    CHECK(on_cuda() ? workspace.recommended_bytes > 0 : workspace.recommended_bytes == 0);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "plan", xqkv_plan_get_workspace(NULL, &workspace, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "workspace", xqkv_plan_get_workspace(plan, NULL, &error));
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    CHECK_OK(xqkv_plan_destroy(more, &error));
}

static void bad_options_are_refused(void) {
    static outputs out;
    static const int64_t alignments[] = {-1, 3, 512, INT64_MIN};
    xqkv_plan *plan = NULL;
    xqkv_forward call = test_call(&out, 3, 4);
    xqkv_plan_options options = defaults();
    CHECK_SIZES(xqkv_plan_options, options, xqkv_plan_create(projection, &call, &options, &plan, &error));
    for (int at = 0; at < 4; at++) {
        options = defaults(), options.alignment_bytes = alignments[at];
        CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "alignment_bytes",
                      xqkv_plan_create(projection, &call, &options, &plan, &error));
    }
    options = defaults(), options.workspace_limit = -2;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "workspace_limit",
                  xqkv_plan_create(projection, &call, &options, &plan, &error));
    options = defaults(), options.flags = 2;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "flags", xqkv_plan_create(projection, &call, &options, &plan, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "plan", xqkv_plan_create(projection, &call, NULL, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "example", xqkv_plan_create(projection, NULL, NULL, &plan, &error));
    CHECK(plan == NULL);
}

static void a_commit_tells_its_bytes_and_takes_none_for_telling(void) {
    int64_t bytes = -1, again = -1;
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    put_all(update, 0);
    CHECK_OK(xqkv_update_get_commit_bytes(update, &bytes, &error));
    CHECK_OK(xqkv_update_get_commit_bytes(update, &again, &error));
    CHECK(bytes >= LAYERS * (12 * DECODER_WIDTH + 10 * ENCODER_WIDTH) * 4 && bytes == again);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "commit_bytes", xqkv_update_get_commit_bytes(update, NULL, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
}

static void retired_weights_are_reclaimed(void) {
    int64_t waiting = -1;
    void *streams[1] = {NULL};
    load(projection, 0);
    CHECK_OK(xqkv_context_reclaim(context, streams, 1, &waiting, &error));
    CHECK(waiting >= 0);
    CHECK_OK(xqkv_context_reclaim(context, NULL, 0, &waiting, &error));
    CHECK(waiting == 0);
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "stream_count", xqkv_context_reclaim(context, NULL, -1, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "streams", xqkv_context_reclaim(context, NULL, 1, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "context", xqkv_context_reclaim(NULL, NULL, 0, NULL, &error));
}

int main(void) {
    context = test_context(2);
    projection = test_projection(context, NULL);
    load(projection, 0);
    a_plan_runs_every_number_of_rows_up_to_its_own();
    layers_of_their_own_may_have_fewer_rows_than_planned();
    a_plan_for_both_sides_serves_one_of_them_and_any_layer();
    a_plan_survives_a_commit();
    a_timed_and_an_unaligned_plan_run_as_well();
    calls_of_another_shape_are_refused();
    workspaces_are_told();
    bad_options_are_refused();
    a_commit_tells_its_bytes_and_takes_none_for_telling();
    retired_weights_are_reclaimed();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    return check_done();
}
