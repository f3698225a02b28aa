/* Updates: all at once or not at all, what is left out stays, what is cleared goes. */
#include "fixture.h"

static xqkv_projection *projection;

static xqkv_update *begin(void) {
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    return update;
}

/* The generation of a part of layer 0, or -1 if the call that needs it is not ready. */
static int generation_of(int part) {
    static outputs out;
    xqkv_forward call = test_call(&out, part == QUERY ? 2 : 0, part == QUERY ? 0 : 2);
    poison(&out);
    xqkv_status status = xqkv_projection_forward(projection, &call, NULL, &error);
    if (status == XQKV_STATUS_NOT_READY) return CHECK(is_poisoned(&out)), -1;
    CHECK(status == XQKV_STATUS_OK);
    for (int generation = 0; generation < 4; generation++)
        if (has_rows(&out, part, 0, 2, generation)) return generation;
    return -2;
}

static void forwards_need_what_they_run_and_name_what_is_missing(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 1, 1);
    CHECK_REFUSED(XQKV_STATUS_NOT_READY, "query weight of layer 0, query bias of layer 0, key weight of layer 0, "
                  "value weight of layer 0 and 1 more", xqkv_projection_forward(projection, &call, NULL, &error));
    xqkv_update *update = begin();
    CHECK_OK(put_weight(update, 0, QUERY, 0));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(QUERY) == -1);
    CHECK(strstr(error.message, "not loaded: query bias of layer 0;") != NULL);
    update = begin();
    CHECK_OK(put_bias(update, 0, QUERY));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(QUERY) == 0 && generation_of(KEY) == -1);
}

static void what_is_left_out_stays_and_abandoned_puts_vanish(void) {
    int64_t version = 0, before = 0;
    load(projection, 0);
    CHECK_OK(xqkv_projection_get_weights_version(projection, &before, &error));
    xqkv_update *update = begin(), *dropped = begin();
    CHECK_OK(put_weight(update, 0, KEY, 1));
    CHECK_OK(put_weight(dropped, 0, VALUE, 3));
    CHECK(generation_of(KEY) == 0);
    CHECK_OK(xqkv_update_abandon(dropped, &error));
    CHECK_OK(xqkv_update_commit(update, &version, &error));
    CHECK(version == before + 1);
    CHECK(generation_of(QUERY) == 0 && generation_of(KEY) == 1 && generation_of(VALUE) == 0);
}

static void two_open_updates_each_replace_their_own(void) {
    xqkv_update *one = begin(), *two = begin();
    CHECK_OK(put_weight(one, 0, QUERY, 2));
    CHECK_OK(put_weight(two, 0, VALUE, 3));
    CHECK_OK(xqkv_update_commit(two, NULL, &error));
    CHECK_OK(xqkv_update_commit(one, NULL, &error));
    CHECK(generation_of(QUERY) == 2 && generation_of(KEY) == 1 && generation_of(VALUE) == 3);
}

static void cleared_parts_go(void) {
    xqkv_update *update = begin();
    CHECK_OK(xqkv_update_clear(update, 0, XQKV_PART_KEY_VALUE, XQKV_KIND_WEIGHT, &error));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "key weight of layer 0", put_weight(update, 0, KEY, 0));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(KEY) == -1 && generation_of(QUERY) == 2);
    update = begin();
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "no key bias", xqkv_update_clear(update, 0, XQKV_PART_KEY,
                  XQKV_KIND_BIAS, &error));
    CHECK_OK(xqkv_update_abandon(update, &error));
    load(projection, 0);
}

static void puts_that_make_no_sense_are_refused(void) {
    float weight[12 * ENCODER_WIDTH] = {0};
    xqkv_tensor tensor = test_tensor(weight, 12, DECODER_WIDTH);
    xqkv_tensor bias = test_tensor(weight, 6, 1), fused = test_tensor(weight, 22, DECODER_WIDTH);
    xqkv_update *update = begin();
    CHECK_OK(put_weight(update, 0, QUERY, 1));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "query weight of layer 0", put_weight(update, 0, QUERY, 1));
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer is 2", xqkv_update_put(update, 2, XQKV_PART_QUERY,
                  XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer is -1", xqkv_update_put(update, -1, XQKV_PART_QUERY,
                  XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ENUM, "part is 0", xqkv_update_put(update, 1, 0, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ENUM, "kind is 4", xqkv_update_put(update, 1, XQKV_PART_QUERY, 4, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "norm", xqkv_update_put(update, 1, XQKV_PART_QUERY, XQKV_KIND_NORM, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "no key bias", xqkv_update_put(update, 1, XQKV_PART_KEY,
                  XQKV_KIND_BIAS, &bias, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_SHAPE, "decoder_width 5", xqkv_update_put(update, 1, XQKV_PART_QUERY_KEY_VALUE,
                  XQKV_KIND_WEIGHT, &fused, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "tensor", xqkv_update_put(update, 1, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_put(NULL, 1, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_clear(NULL, 1, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_commit(NULL, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_begin(projection, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "projection", xqkv_update_begin(NULL, &update, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(QUERY) == 1);
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_commit(update, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_update_abandon(NULL, &error));
}

static void an_update_outlives_its_projection_s_handle(void) {
    xqkv_update *update = begin();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    put_all(update, 1);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
}

int main(void) {
    xqkv_context *context = test_context(1);
    projection = test_projection(context, NULL);
    CHECK_OK(xqkv_context_destroy(context, &error));
    forwards_need_what_they_run_and_name_what_is_missing();
    what_is_left_out_stays_and_abandoned_puts_vanish();
    two_open_updates_each_replace_their_own();
    cleared_parts_go();
    puts_that_make_no_sense_are_refused();
    an_update_outlives_its_projection_s_handle();
    return check_done();
}
