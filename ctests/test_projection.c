/* Projections: ranks side by side are one rank, and destroying never disturbs. */
#include "fixture.h"

static void ranks_side_by_side_are_one_rank(const xqkv_context *context, int64_t rank_count) {
    xqkv_spec spec = test_spec();
    static outputs out;
    poison(&out);
    for (int64_t rank = 0; rank < rank_count; rank++) {
        xqkv_projection_options options;
        xqkv_shard shard;
        xqkv_stats stats;
        CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
        CHECK_OK(xqkv_projection_options_balance(&options, &spec, rank, rank_count, &error));
        xqkv_projection *projection = test_projection(context, &options);
        load(projection, 0);
        CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
        CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
        CHECK_OK(xqkv_projection_get_shard(projection, &shard, &error));
        xqkv_forward call = test_call(&out, 3, 6);
        call.query.data = out.parts[QUERY] + shard.query_head_begin * HEAD_WIDTH;
        call.key.data = out.parts[KEY] + shard.key_value_head_begin * HEAD_WIDTH;
        call.value.data = out.parts[VALUE] + shard.key_value_head_begin * VALUE_WIDTH;
        call.query.row_stride = test_columns(QUERY);
        call.key.row_stride = test_columns(KEY);
        call.value.row_stride = test_columns(VALUE);
        CHECK_OK(run_forward(projection, &call, &stats, &error));
        CHECK(stats.multiply_adds == 3 * shard.query_columns * DECODER_WIDTH +
                                         6 * (shard.key_columns + shard.value_columns) * ENCODER_WIDTH);
        CHECK_OK(xqkv_projection_destroy(projection, &error));
    }
    for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 0, part == QUERY ? 3 : 6, 0));
}

static void a_rank_without_heads_does_nothing(const xqkv_context *context) {
    static outputs out;
    xqkv_projection_options options;
    xqkv_stats stats;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.split = XQKV_SPLIT_EXPLICIT;
    xqkv_projection *projection = test_projection(context, &options);
    xqkv_forward call = test_call(&out, 3, 6);
    poison(&out);
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    CHECK(stats.multiply_adds == 0 && stats.matmuls == 0 && is_poisoned(&out));
    load(projection, 0);
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    CHECK(stats.multiply_adds == 0 && is_poisoned(&out));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void a_pipeline_rank_holds_its_layers_only(const xqkv_context *context) {
    static outputs out;
    xqkv_projection_options options;
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.layer_begin = 1;
    xqkv_projection *projection = test_projection(context, &options);
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer is 0", put_weight(update, 0, QUERY, 0));
    for (int part = QUERY; part <= VALUE; part++) CHECK_OK(put_weight(update, 1, part, 0));
    CHECK_OK(put_bias(update, 1, QUERY));
    CHECK_OK(put_bias(update, 1, VALUE));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    xqkv_forward call = test_call(&out, 2, 2);
    poison(&out);
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer 0", run_forward(projection, &call, NULL, &error));
    CHECK(is_poisoned(&out));
    call.layer = 1;
    CHECK_OK(run_forward(projection, &call, NULL, &error));
    for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 1, 2, 0));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void nulls_and_sizes_are_refused(const xqkv_context *context) {
    xqkv_spec spec = test_spec();
    xqkv_projection *projection = NULL;
    xqkv_shard shard;
    int64_t version = -1;
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "context", xqkv_projection_create(NULL, &spec, NULL, &projection, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "spec", xqkv_projection_create(context, NULL, NULL, &projection, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "projection", xqkv_projection_create(context, &spec, NULL, NULL, &error));
    spec.head_width = 0;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "head_width", xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK(projection == NULL);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "projection", xqkv_projection_get_shard(NULL, &shard, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "projection", xqkv_projection_get_weights_version(NULL, &version, &error));
    projection = test_projection(context, NULL);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "shard", xqkv_projection_get_shard(projection, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "weights_version", xqkv_projection_get_weights_version(projection, NULL, &error));
    CHECK_OK(xqkv_projection_get_weights_version(projection, &version, &error));
    CHECK(version == 0);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_projection_destroy(NULL, &error));
    xqkv_projection_options options;
    CHECK(xqkv_projection_options_init(NULL, sizeof options) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK(xqkv_projection_options_init(&options, 4) == XQKV_STATUS_INVALID_STRUCT_SIZE);
}

static void sizes_are_refused_by_create_and_get_shard(const xqkv_context *context) {
    xqkv_spec spec = test_spec();
    xqkv_projection_options options;
    xqkv_projection *projection = NULL;
    xqkv_shard shard;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    CHECK_SIZES(xqkv_spec, spec, xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_SIZES(xqkv_projection_options, options,
                xqkv_projection_create(context, &spec, &options, &projection, &error));
    CHECK(projection == NULL);
    CHECK_OK(xqkv_projection_create(context, &spec, &options, &projection, &error));
    CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
    CHECK_SIZES(xqkv_shard, shard, xqkv_projection_get_shard(projection, &shard, &error));
    CHECK(shard.layer_count == 0);
    CHECK_OK(xqkv_projection_get_shard(projection, &shard, &error));
    CHECK(shard.layer_count == LAYERS);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void heads_that_do_not_divide_make_no_projection(const xqkv_context *context) {
    xqkv_spec spec = test_spec();
    xqkv_projection_options options;
    xqkv_projection *projection = NULL;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.rank_count = 3;
    CHECK_REFUSED(XQKV_STATUS_INDIVISIBLE_HEADS, "4 query heads",
                  xqkv_projection_create(context, &spec, &options, &projection, &error));
    CHECK(projection == NULL);
    CHECK_OK(xqkv_projection_options_balance(&options, &spec, 0, 3, &error));
    CHECK_OK(xqkv_projection_create(context, &spec, &options, &projection, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* 2^59 bytes of weights, of which nothing is there until something is put. */
static void a_projection_takes_no_memory_before_its_weights(const xqkv_context *context) {
    xqkv_spec spec = test_spec();
    xqkv_projection *projection = NULL;
    xqkv_shard shard;
    spec.decoder_width = spec.encoder_width = INT64_C(1) << 31, spec.layer_count = 1 << 20;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
    CHECK_OK(xqkv_projection_get_shard(projection, &shard, &error));
    CHECK(shard.weight_bytes == (INT64_C(1) << 20) * 4 * (12 + 4 + (INT64_C(1) << 31) * (12 + 6 + 4)));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    spec.layer_count = INT64_C(1) << 31;
    CHECK_REFUSED(XQKV_STATUS_SIZE_OVERFLOW, "2^63", xqkv_projection_create(context, &spec, NULL, &projection, &error));
}

int main(void) {
    xqkv_context *context = test_context(2);
    for (int64_t ranks = 1; ranks <= 5; ranks++) ranks_side_by_side_are_one_rank(context, ranks);
    a_rank_without_heads_does_nothing(context);
    a_pipeline_rank_holds_its_layers_only(context);
    nulls_and_sizes_are_refused(context);
    sizes_are_refused_by_create_and_get_shard(context);
    heads_that_do_not_divide_make_no_projection(context);
    a_projection_takes_no_memory_before_its_weights(context);
    CHECK_OK(xqkv_context_destroy(context, &error));
    return check_done();
}
