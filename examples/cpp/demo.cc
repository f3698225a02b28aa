// The main job through xqkv.hpp: each of two ranks loads its shard of a checkpoint and projects.
//
// usage: demo CHECKPOINT
#include <cstdio>
#include <vector>
#include <xqkv.hpp>

static void run(const char *directory) {
    const xqkv_checkpoint checkpoint = xqkv::checkpoint(directory);
    const xqkv_spec spec = xqkv::read_spec(checkpoint);
    const xqkv::context context = xqkv::context::try_create().value();
    const std::int64_t encoder_rows = 50;
    const std::vector<float> decoder(static_cast<std::size_t>(spec.decoder_width), 0.5F);
    const std::vector<float> encoder(static_cast<std::size_t>(encoder_rows * spec.encoder_width), 0.25F);
    std::printf("rank  call         multiply-adds\n");
    for (int rank = 0; rank < 2; rank++) {
        xqkv_projection_options options = xqkv::projection_options();
        options.rank = rank, options.rank_count = 2;
        const xqkv::projection projection = xqkv::load(context, spec, checkpoint, options);
        const xqkv_shard shard = projection.try_shard().value();
        std::vector<float> query(static_cast<std::size_t>(shard.query_columns));
        std::vector<float> key(static_cast<std::size_t>(encoder_rows * shard.key_columns));
        std::vector<float> value(static_cast<std::size_t>(encoder_rows * shard.value_columns));
        xqkv_forward call = xqkv::forward();
        call.decoder = xqkv::rows(decoder.data(), 1);
        call.query = xqkv::view(query.data());
        std::printf("%4d  decode step  %13lld\n", rank, static_cast<long long>(projection.forward(call).multiply_adds));
        call.encoder = xqkv::rows(encoder.data(), encoder_rows);
        call.key = xqkv::view(key.data());
        call.value = xqkv::view(value.data());
        std::printf("%4d  prefill      %13lld\n", rank, static_cast<long long>(projection.forward(call).multiply_adds));
    }
}

int main(int count, char **arguments) {
    if (count != 2) return std::fprintf(stderr, "usage: %s CHECKPOINT\n", arguments[0]), 2;
    try {
        run(arguments[1]);
    } catch (const xqkv::error &error) {
        return std::fprintf(stderr, "%s: %s\n", xqkv_status_name(error.status()), error.what()), 1;
    }
    return 0;
}
