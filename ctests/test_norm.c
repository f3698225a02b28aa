/* The weights of the norms of Q's and K's heads: put, kept, cleared and missed as weights and biases are. */
#include "fixture.h"

static xqkv_context *context;

static xqkv_spec norm_spec(void) {
    xqkv_spec spec = test_spec();
    spec.norm = XQKV_NORM_RMS, spec.norm_epsilon = 1e-5f, spec.norm_rounds_first = 1;
    return spec;
}

static xqkv_projection *norm_projection(const xqkv_projection_options *options) {
    xqkv_spec spec = norm_spec();
    xqkv_projection *projection = NULL;
    CHECK_OK(xqkv_projection_create(context, &spec, options, &projection, &error));
    return projection;
}

static xqkv_update *begin(const xqkv_projection *projection) {
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    return update;
}

/* A norm's weight of so many elements of a dtype. */
static xqkv_status put_norm_as(xqkv_update *update, int layer, int part, int elements, int dtype) {
    float weight[2 * HEAD_WIDTH];
    for (int at = 0; at < elements; at++) store(weight, dtype, at, (float)(at + 1));
    xqkv_tensor tensor = test_tensor(weight, elements, 0);
    tensor.dtype = dtype;
    return xqkv_update_put(update, layer, part, XQKV_KIND_NORM, &tensor, &error);
}

static xqkv_status put_norm(xqkv_update *update, int layer, int part) {
    return put_norm_as(update, layer, part, HEAD_WIDTH, XQKV_DTYPE_F32);
}

/* What a prefill of a layer answers. */
static xqkv_status answer_of(const xqkv_projection *projection, int layer) {
    static outputs out;
    xqkv_forward call = test_call(&out, 3, 4);
    poison(&out);
    call.layer = layer;
    lend_workspace(&call);
    xqkv_status status = run_forward(projection, &call, NULL, &error);
    CHECK(status == XQKV_STATUS_OK || is_poisoned(&out));
    return status;
}

static int is_ready(const xqkv_projection *projection, int layer) {
    return answer_of(projection, layer) != XQKV_STATUS_NOT_READY;
}

static void a_norm_that_is_missing_is_named(void) {
    xqkv_projection *projection = norm_projection(NULL);
    load(projection, 0);
    CHECK_REFUSED(XQKV_STATUS_NOT_READY, "query norm of layer 0, key norm of layer 0", answer_of(projection, 0));
    xqkv_update *update = begin(projection);
    CHECK_OK(put_norm(update, 0, XQKV_PART_QUERY));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NOT_READY, "not loaded: key norm of layer 0;", answer_of(projection, 0));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void norms_are_kept_by_commits_and_cleared_when_asked(void) {
    xqkv_projection *projection = norm_projection(NULL);
    xqkv_update *update = begin(projection);
    put_all(update, 0);
    CHECK_OK(put_norm(update, 1, XQKV_PART_QUERY));
    CHECK_OK(put_norm(update, 1, XQKV_PART_KEY));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(is_ready(projection, 1) && !is_ready(projection, 0));
    load(projection, 1);
    CHECK(is_ready(projection, 1) && !is_ready(projection, 0));
    update = begin(projection);
    CHECK_OK(xqkv_update_clear(update, 1, XQKV_PART_KEY, XQKV_KIND_NORM, &error));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "key norm of layer 1", put_norm(update, 1, XQKV_PART_KEY));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NOT_READY, "not loaded: key norm of layer 1;", answer_of(projection, 1));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void norms_that_make_no_sense_are_refused(void) {
    xqkv_projection *projection = norm_projection(NULL), *plain = test_projection(context, NULL);
    xqkv_update *update = begin(projection), *without = begin(plain);
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "value has no norm", put_norm(update, 0, XQKV_PART_VALUE));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "value has no norm", put_norm(update, 0, XQKV_PART_KEY_VALUE));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "value has no norm",
                  xqkv_update_clear(update, 0, XQKV_PART_VALUE, XQKV_KIND_NORM, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "spec has no norm", put_norm(without, 0, XQKV_PART_QUERY));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "spec has no norm",
                  xqkv_update_clear(without, 0, XQKV_PART_QUERY, XQKV_KIND_NORM, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_SHAPE, "query norm is [6, 1], this spec needs [3, 1]",
                  put_norm_as(update, 0, XQKV_PART_QUERY, 2 * HEAD_WIDTH, XQKV_DTYPE_F32));
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer is 2", put_norm(update, 2, XQKV_PART_QUERY));
    CHECK_OK(put_norm(update, 0, XQKV_PART_QUERY));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "query norm of layer 0", put_norm(update, 0, XQKV_PART_QUERY));
    CHECK_OK(xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_update_abandon(without, &error));
    CHECK_OK(xqkv_projection_destroy(plain, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* A rank takes the whole norm, whichever heads it has and whatever its extent, layout and dtype. */
static void every_rank_takes_the_whole_norm(void) {
    static const float weight[2 * HEAD_WIDTH - 1] = {1, NAN, 2, NAN, 3};
    xqkv_projection_options options;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.rank = 1, options.rank_count = 2;
    xqkv_projection *projection = norm_projection(&options);
    xqkv_update *update = begin(projection);
    xqkv_tensor tensor = test_tensor(weight, HEAD_WIDTH, 1);
    tensor.row_stride = 2, tensor.layout = XQKV_LAYOUT_IN_OUT, tensor.extent = XQKV_EXTENT_SHARD;
    int64_t before = 0, after = 0;
    CHECK_OK(xqkv_update_get_commit_bytes(update, &before, &error));
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_NORM, &tensor, &error));
    CHECK_OK(put_norm_as(update, 0, XQKV_PART_KEY, HEAD_WIDTH, XQKV_DTYPE_BF16));
    CHECK_OK(xqkv_update_get_commit_bytes(update, &after, &error));
    CHECK(on_cuda() || after - before == 2 * HEAD_WIDTH * (int64_t)sizeof(float));
    put_all(update, 0);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(is_ready(projection, 0));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* The norms' weights are a part of what a rank holds. */
static void a_shard_counts_its_norms(void) {
    xqkv_spec spec = norm_spec(), without = test_spec();
    xqkv_shard normed, plain;
    CHECK_OK(xqkv_shard_init(&normed, sizeof normed));
    CHECK_OK(xqkv_shard_init(&plain, sizeof plain));
    CHECK_OK(xqkv_spec_cut(&spec, NULL, &normed, &error));
    CHECK_OK(xqkv_spec_cut(&without, NULL, &plain, &error));
    CHECK(normed.weight_bytes - plain.weight_bytes == LAYERS * 2 * HEAD_WIDTH * (int64_t)sizeof(float));
}

int main(void) {
    context = test_context(1);
    a_norm_that_is_missing_is_named();
    norms_are_kept_by_commits_and_cleared_when_asked();
    norms_that_make_no_sense_are_refused();
    every_rank_takes_the_whole_norm();
    a_shard_counts_its_norms();
    CHECK_OK(xqkv_context_destroy(context, &error));
    return check_done();
}
