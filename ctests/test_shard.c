/* What ranks hold: even, replicated, uneven and empty shares. */
#include "fixture.h"

static xqkv_spec heads(int64_t query_heads, int64_t key_value_heads) {
    xqkv_spec spec = test_spec();
    spec.query_heads = query_heads, spec.key_value_heads = key_value_heads;
    return spec;
}

static xqkv_projection_options even(int64_t rank, int64_t rank_count) {
    xqkv_projection_options options;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.rank = rank, options.rank_count = rank_count;
    return options;
}

static xqkv_shard cut(const xqkv_spec *spec, const xqkv_projection_options *options) {
    xqkv_shard shard;
    CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
    CHECK_OK(xqkv_spec_cut(spec, options, &shard, &error));
    return shard;
}

static void the_whole_has_all_heads_layers_and_bytes(void) {
    xqkv_spec spec = test_spec();
    xqkv_shard shard = cut(&spec, NULL);
    CHECK(shard.query_head_count == QUERY_HEADS && shard.key_value_head_count == KEY_VALUE_HEADS);
    CHECK(shard.layer_begin == 0 && shard.layer_count == LAYERS);
    CHECK(shard.query_columns == 12 && shard.key_columns == 6 && shard.value_columns == 4);
    CHECK(shard.weight_bytes == LAYERS * 4 * (12 * 5 + 12 + 6 * 7 + 4 * 7 + 4));
}

static void key_value_heads_are_replicated_on_neighbours(void) {
    xqkv_spec spec = heads(32, 8);
    for (int64_t rank = 0; rank < 16; rank++) {
        xqkv_projection_options options = even(rank, 16);
        xqkv_shard shard = cut(&spec, &options);
        CHECK(shard.query_head_begin == 2 * rank && shard.query_head_count == 2);
        CHECK(shard.key_value_head_begin == rank / 2 && shard.key_value_head_count == 1);
    }
}

static void a_query_split_leaves_key_and_value_whole(void) {
    xqkv_spec spec = heads(8, 2);
    xqkv_projection_options options = even(3, 4);
    options.split = XQKV_SPLIT_QUERY;
    xqkv_shard shard = cut(&spec, &options);
    CHECK(shard.query_head_begin == 6 && shard.query_head_count == 2);
    CHECK(shard.key_value_head_begin == 0 && shard.key_value_head_count == 2);
}

/* A whole's worth of every width but the heads and layers that the options leave out. */
static void an_uneven_split_of_some_layers_has_the_bytes_of_its_heads(void) {
    xqkv_spec spec = heads(8, 2);
    xqkv_projection_options options = even(0, 0);
    options.split = XQKV_SPLIT_EXPLICIT, options.layer_begin = 1;
    options.query_head_begin = 4, options.query_head_count = 3;
    options.key_value_head_begin = 1, options.key_value_head_count = 1;
    xqkv_shard shard = cut(&spec, &options);
    CHECK(shard.query_head_begin == 4 && shard.query_head_count == 3 && shard.query_columns == 9);
    CHECK(shard.key_value_head_begin == 1 && shard.key_value_head_count == 1);
    CHECK(shard.key_columns == 3 && shard.value_columns == 2 && shard.layer_begin == 1 && shard.layer_count == 1);
    CHECK(shard.weight_bytes == 4 * (9 * 5 + 9 + 3 * 7 + 2 * 7 + 2));
    options.query_head_begin = options.query_head_count = 0;
    shard = cut(&spec, &options);
    CHECK(shard.query_head_count == 0 && shard.query_columns == 0 && shard.weight_bytes == 4 * (3 * 7 + 2 * 7 + 2));
}

/* 6 heads on 4 ranks: the message names a split, which is accepted; the balanced splits tile the whole. */
static void indivisible_heads_name_a_split_that_works(void) {
    xqkv_spec spec = heads(6, 6);
    int64_t next = 0;
    for (int64_t rank = 0; rank < 4; rank++) {
        long long query_begin, query_count, key_value_begin, key_value_count;
        xqkv_projection_options options = even(rank, 4);
        xqkv_shard shard;
        CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
        CHECK_REFUSED(XQKV_STATUS_INDIVISIBLE_HEADS, "6 query heads", xqkv_spec_cut(&spec, &options, &shard, &error));
        const char *named = strstr(error.message, "query_head_begin");
        CHECK(named != NULL && sscanf(named, "query_head_begin %lld, query_head_count %lld, key_value_head_begin %lld, "
                                      "key_value_head_count %lld", &query_begin, &query_count, &key_value_begin,
                                      &key_value_count) == 4);
        options = even(0, 0);
        options.split = XQKV_SPLIT_EXPLICIT;
        options.query_head_begin = query_begin, options.query_head_count = query_count;
        options.key_value_head_begin = key_value_begin, options.key_value_head_count = key_value_count;
        shard = cut(&spec, &options);
        xqkv_projection_options balanced = even(0, 0);
        CHECK_OK(xqkv_projection_options_balance(&balanced, &spec, rank, 4, &error));
        CHECK(memcmp(&balanced, &options, sizeof options) == 0);
        CHECK(shard.query_head_begin == next);
        next += shard.query_head_count;
    }
    CHECK(next == 6);
}

static void refused(xqkv_projection_options options, xqkv_status status, const char *word) {
    xqkv_spec spec = heads(8, 2);
    xqkv_shard shard;
    CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
    CHECK_REFUSED(status, word, xqkv_spec_cut(&spec, &options, &shard, &error));
    CHECK(shard.query_columns == 0);
    options = even(0, 1);
    CHECK_OK(xqkv_spec_cut(&spec, &options, &shard, &error));
}

static xqkv_projection_options explicit_heads(int64_t query, int64_t queries, int64_t key_value, int64_t key_values) {
    xqkv_projection_options options = even(0, 0);
    options.split = XQKV_SPLIT_EXPLICIT;
    options.query_head_begin = query, options.query_head_count = queries;
    options.key_value_head_begin = key_value, options.key_value_head_count = key_values;
    return options;
}

static void splits_that_make_no_sense_are_refused(void) {
    xqkv_projection_options options = even(0, 1);
    refused(even(2, 2), XQKV_STATUS_INVALID_ARGUMENT, "rank 2");
    refused(even(-1, 2), XQKV_STATUS_INVALID_ARGUMENT, "rank -1");
    refused(even(0, -3), XQKV_STATUS_INVALID_ARGUMENT, "rank_count -3");
    refused(explicit_heads(0, 4, 1, 1), XQKV_STATUS_INVALID_ARGUMENT, "key/value heads 0..1");
    refused(explicit_heads(7, 2, 0, 2), XQKV_STATUS_INVALID_ARGUMENT, "query_head_begin 7");
    refused(explicit_heads(0, INT64_MAX, 0, 2), XQKV_STATUS_INVALID_ARGUMENT, "query_head_begin 0");
    refused(explicit_heads(0, 8, -1, 2), XQKV_STATUS_INVALID_ARGUMENT, "key_value_head_begin -1");
    options.split = 3;
    refused(options, XQKV_STATUS_INVALID_ENUM, "split is 3");
    options.split = INT32_MIN;
    refused(options, XQKV_STATUS_INVALID_ENUM, "split is -2147483648");
    refused(even(0, INT64_MAX), XQKV_STATUS_INDIVISIBLE_HEADS, "8 query heads");
    refused(even(INT64_MAX, INT64_MAX), XQKV_STATUS_INVALID_ARGUMENT, "rank 9223372036854775807");
    refused(explicit_heads(0, 8, INT64_MAX, INT64_MAX), XQKV_STATUS_INVALID_ARGUMENT, "key_value_head_begin");
    refused(explicit_heads(INT64_MIN, 8, 0, 2), XQKV_STATUS_INVALID_ARGUMENT, "query_head_begin");
    options = even(0, 1), options.query_head_count = 2;
    refused(options, XQKV_STATUS_INVALID_ARGUMENT, "XQKV_SPLIT_EXPLICIT");
    options = explicit_heads(0, 8, 0, 2), options.rank_count = 2;
    refused(options, XQKV_STATUS_INVALID_ARGUMENT, "rank_count 2");
    options = even(0, 1), options.layer_begin = LAYERS;
    refused(options, XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer_begin 2");
    options = even(0, 1), options.layer_begin = 1, options.layer_count = INT64_MAX;
    refused(options, XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer_count");
    options = even(0, 1), options.flags = 8;
    refused(options, XQKV_STATUS_INVALID_ARGUMENT, "flags");
}

static void sizes_are_refused(void) {
    xqkv_spec spec = test_spec();
    xqkv_shard shard;
    xqkv_projection_options options = even(0, 1);
    CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
    CHECK_SIZES(xqkv_projection_options, options, xqkv_spec_cut(&spec, &options, &shard, &error));
    CHECK_SIZES(xqkv_projection_options, options, xqkv_projection_options_balance(&options, &spec, 0, 1, &error));
    CHECK_SIZES(xqkv_shard, shard, xqkv_spec_cut(&spec, &options, &shard, &error));
    CHECK_SIZES(xqkv_spec, spec, xqkv_spec_cut(&spec, &options, &shard, &error));
    CHECK_SIZES(xqkv_spec, spec, xqkv_projection_options_balance(&options, &spec, 0, 1, &error));
    CHECK(shard.query_columns == 0 && options.split == XQKV_SPLIT_EVEN);
    CHECK_OK(xqkv_spec_cut(&spec, &options, &shard, &error));
    CHECK(shard.query_columns == 12);
}

static void nulls_are_refused(void) {
    xqkv_spec spec = test_spec();
    xqkv_shard shard;
    xqkv_projection_options options = even(0, 1);
    CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
    CHECK(xqkv_shard_init(NULL, sizeof shard) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "spec", xqkv_spec_cut(NULL, NULL, &shard, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "shard", xqkv_spec_cut(&spec, NULL, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "spec", xqkv_projection_options_balance(&options, NULL, 0, 1, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "options", xqkv_projection_options_balance(NULL, &spec, 0, 1, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank 1", xqkv_projection_options_balance(&options, &spec, 1, 1, &error));
}

int main(void) {
    the_whole_has_all_heads_layers_and_bytes();
    key_value_heads_are_replicated_on_neighbours();
    a_query_split_leaves_key_and_value_whole();
    an_uneven_split_of_some_layers_has_the_bytes_of_its_heads();
    indivisible_heads_name_a_split_that_works();
    splits_that_make_no_sense_are_refused();
    sizes_are_refused();
    nulls_are_refused();
    return check_done();
}
