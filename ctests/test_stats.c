/* Executed multiply-adds are the necessary ones, in each of the three calls. */
#include "fixture.h"

static xqkv_stats counted(const xqkv_projection *projection, int decoder_rows, int encoder_rows, int layers) {
    static outputs out;
    xqkv_stats stats;
    xqkv_forward call = test_call(&out, decoder_rows, encoder_rows);
    CHECK_OK(xqkv_stats_init(&stats, sizeof stats));
    call.layer_count = layers;
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    CHECK(stats.struct_size == sizeof stats && stats.plans_made <= on_cuda() && stats.weights_version == 1);
    return stats;
}

/* Outputs that the host multiplies together. */
static int lanes(void) {
    xqkv_context_info info;
    xqkv_context *context = test_context(1);
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_OK(xqkv_context_get_info(context, &info, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    const int is_wide =
        info.instruction_set == XQKV_INSTRUCTION_SET_AVX512 || info.instruction_set == XQKV_INSTRUCTION_SET_AVX512_BF16;
    return is_wide ? 32 : 16;
}

static void executed_is_necessary(const xqkv_projection *projection) {
    for (int rows = 1; rows <= 9; rows++) {
        int64_t query = rows * 12 * 5, key_value = rows * (6 + 4) * 7;
        CHECK(counted(projection, rows, 0, 1).multiply_adds == query);
        CHECK(counted(projection, rows, rows, 1).multiply_adds == query + key_value);
        CHECK(counted(projection, 0, rows, 1).multiply_adds == key_value);
        CHECK(counted(projection, 0, rows, 2).multiply_adds == 2 * key_value);
        /* Lanes up to a multiple of 16 or 32 are counted apart; what CUDA pads nobody tells. */
        if (on_cuda()) continue;
        CHECK(counted(projection, rows, 0, 1).padding_multiply_adds == rows * (lanes() - 12) * 5);
        CHECK(counted(projection, 0, rows, 1).padding_multiply_adds == rows * (lanes() - 6 + lanes() - 4) * 7);
    }
    CHECK(counted(projection, 1, 0, 1).matmuls == 1);
    CHECK(counted(projection, 1, 1, 1).matmuls == 3);
    CHECK(counted(projection, 0, 1, 2).matmuls == (on_cuda() ? 2 : 4));
}

static void bad_stats_are_refused_before_anything_runs(const xqkv_projection *projection) {
    static outputs out;
    xqkv_stats stats;
    xqkv_forward call = test_call(&out, 1, 1);
    poison(&out);
    CHECK(xqkv_stats_init(NULL, sizeof stats) == XQKV_STATUS_NULL_ARGUMENT);
    memset(&stats, 0x5a, sizeof stats);
    const xqkv_stats before = stats;
    CHECK_SIZES(xqkv_stats, stats, run_forward(projection, &call, &stats, &error));
    stats.struct_size = before.struct_size;
    CHECK(memcmp(&stats, &before, sizeof stats) == 0 && is_poisoned(&out));
}

static void a_refused_call_leaves_stats_as_they_were(const xqkv_projection *projection) {
    static outputs out;
    xqkv_stats stats;
    xqkv_forward call = test_call(&out, 1, 1);
    memset(&stats, 0x5a, sizeof stats), stats.struct_size = sizeof stats;
    const xqkv_stats before = stats;
    call.layer = LAYERS;
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer 2",
                  run_forward(projection, &call, &stats, &error));
    CHECK(memcmp(&stats, &before, sizeof stats) == 0);
    call.layer = 0;
    CHECK_OK(run_forward(projection, &call, &stats, &error));
    CHECK(stats.multiply_adds == 12 * 5 + (6 + 4) * 7 && stats.weights_version == 1 && stats.plans_made <= on_cuda());
}

int main(void) {
    xqkv_projection *projection = ready_projection(2);
    executed_is_necessary(projection);
    bad_stats_are_refused_before_anything_runs(projection);
    a_refused_call_leaves_stats_as_they_were(projection);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    return check_done();
}
