/* Checkpoints: what a good one gives, and a status for every bad one. argv: a Whisper checkpoint, a scratch folder. */
#include "fixture.h"
#include <sys/stat.h>
#include <unistd.h>

static const char *good_folder, *scratch;

static xqkv_checkpoint at(const char *directory) {
    xqkv_checkpoint checkpoint;
    CHECK_OK(xqkv_checkpoint_init(&checkpoint, sizeof checkpoint));
    checkpoint.directory = directory;
    return checkpoint;
}

static char *read_whole(const char *folder, const char *name, size_t *bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!CHECK(file != NULL)) exit(EXIT_FAILURE);
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*bytes + 1);
    CHECK(fread(data, 1, *bytes, file) == *bytes);
    fclose(file);
    data[*bytes] = '\0';
    return data;
}

static void write_whole(const char *name, const char *data, size_t bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    unlink(path);
    FILE *file = fopen(path, "wb");
    if (!CHECK(file != NULL)) exit(EXIT_FAILURE);
    CHECK(fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
}

/* Copies the good checkpoint, with one word of a file replaced by another of the same length. */
static void copy_with(const char *changed, const char *word, const char *other) {
    static const char *names[] = {"config.json", "model.safetensors"};
    for (int file = 0; file < 2; file++) {
        size_t bytes, length = strlen(word);
        char *data = read_whole(good_folder, names[file], &bytes);
        for (size_t place = 0; strcmp(names[file], changed) == 0 && place + length <= bytes; place++)
            if (memcmp(data + place, word, length) == 0) memcpy(data + place, other, length);
        write_whole(names[file], data, bytes);
        free(data);
    }
}

static void a_good_checkpoint_gives_its_spec(void) {
    xqkv_spec spec;
    xqkv_checkpoint checkpoint = at(good_folder);
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    CHECK_OK(xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    CHECK(spec.layer_count == 2 && spec.decoder_width == 384 && spec.encoder_width == 384);
    CHECK(spec.query_heads == 6 && spec.key_value_heads == 6 && spec.head_width == 64);
    CHECK(spec.query_bias == 1 && spec.key_bias == 0 && spec.value_bias == 1);
    CHECK(spec.weight_dtype == XQKV_DTYPE_BF16 && spec.query_scale == 1 && spec.norm == XQKV_NORM_NONE);
}

static const int whisper_biases[] = {1, 0, 1}, all_biases[] = {1, 1, 1}, no_biases[] = {0, 0, 0};

/* Loads a folder into a projection of the good checkpoint's spec, changed in one way. */
static xqkv_status loaded(const char *directory, int64_t heads, const int *biases, int dtype, int convert) {
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_spec spec;
    xqkv_checkpoint checkpoint = at(good_folder);
    int64_t version = -1;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    CHECK_OK(xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    spec.query_heads = spec.key_value_heads = heads;
    spec.query_bias = biases[QUERY], spec.key_bias = biases[KEY], spec.value_bias = biases[VALUE];
    spec.weight_dtype = dtype;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    checkpoint.directory = directory, checkpoint.convert = convert;
    xqkv_status status = xqkv_update_read_checkpoint(update, &checkpoint, &error);
    xqkv_error kept = error;
    CHECK_OK(xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_projection_get_weights_version(projection, &version, &error));
    CHECK(version == 0);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    error = kept;
    return status;
}

static void specs_that_do_not_fit_are_refused(void) {
    CHECK_OK(loaded(good_folder, 6, whisper_biases, XQKV_DTYPE_BF16, 0));
    CHECK_OK(loaded(good_folder, 6, whisper_biases, XQKV_DTYPE_F32, 1));
    CHECK_REFUSED(XQKV_STATUS_INVALID_DTYPE, "XQKV_DTYPE_BF16",
                  loaded(good_folder, 6, whisper_biases, XQKV_DTYPE_F32, 0));
    CHECK_REFUSED(XQKV_STATUS_INVALID_SHAPE, "[384, 384]", loaded(good_folder, 5, whisper_biases, XQKV_DTYPE_BF16, 0));
    CHECK_REFUSED(XQKV_STATUS_CHECKPOINT_MISSING_TENSOR, "k_proj.bias",
                  loaded(good_folder, 6, all_biases, XQKV_DTYPE_BF16, 0));
    CHECK_REFUSED(XQKV_STATUS_CHECKPOINT_MISMATCH, "q_proj.bias",
                  loaded(good_folder, 6, no_biases, XQKV_DTYPE_BF16, 0));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "convert", loaded(good_folder, 6, whisper_biases, XQKV_DTYPE_BF16, 2));
}

static void spec_refused(const char *directory, xqkv_status status, const char *word) {
    xqkv_spec spec;
    xqkv_checkpoint checkpoint = at(directory);
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    CHECK_REFUSED(status, word, xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    CHECK(spec.decoder_width == 0);
}

static void load_refused(const char *directory, xqkv_status status, const char *word) {
    CHECK_REFUSED(status, word, loaded(directory, 6, whisper_biases, XQKV_DTYPE_BF16, 0));
}

static void refused(const char *directory, xqkv_status status, const char *word) {
    spec_refused(directory, status, word);
    load_refused(directory, status, word);
}

static void damaged_checkpoints_are_refused(void) {
    size_t bytes;
    char *data = read_whole(good_folder, "model.safetensors", &bytes);
    copy_with("config.json", "\"whisper\"", "\"pegasus\"");
    refused(scratch, XQKV_STATUS_CHECKPOINT_UNKNOWN_FAMILY, "whisper");
    copy_with("config.json", "d_model", "D_model");
    spec_refused(scratch, XQKV_STATUS_CHECKPOINT_CORRUPT, "d_model");
    copy_with("model.safetensors", "layers.1.encoder_attn.v_proj.weight", "layers.1.encoder_attn.V_proj.weight");
    load_refused(scratch, XQKV_STATUS_CHECKPOINT_MISSING_TENSOR, "layers.1.encoder_attn.v_proj.weight");
    copy_with("", "", "");
    refused(good_folder[0] == '/' ? "/nonexistent" : "nonexistent", XQKV_STATUS_CHECKPOINT_NOT_FOUND, "nonexistent");
    write_whole("model.safetensors", data, bytes - 1);
    refused(scratch, XQKV_STATUS_CHECKPOINT_CORRUPT, "copied completely");
    write_whole("model.safetensors", data, bytes + 1);
    refused(scratch, XQKV_STATUS_CHECKPOINT_CORRUPT, "header describes");
    write_whole("model.safetensors", data, 100);
    refused(scratch, XQKV_STATUS_CHECKPOINT_CORRUPT, "header");
    write_whole("model.safetensors", data, 3);
    refused(scratch, XQKV_STATUS_CHECKPOINT_CORRUPT, "too few");
    write_whole("config.json", "[", 1);
    refused(scratch, XQKV_STATUS_CHECKPOINT_CORRUPT, "config.json");
    free(data);
}

static void files_that_are_no_files_are_refused(void) {
    char path[4096];
    copy_with("", "", "");
    snprintf(path, sizeof path, "%s/model.safetensors", scratch);
    refused(path, XQKV_STATUS_CHECKPOINT_NOT_FOUND, "config.json");
    unlink(path);
    refused(scratch, XQKV_STATUS_CHECKPOINT_NOT_FOUND, "index.json");
    CHECK(mkfifo(path, 0600) == 0);
    refused(scratch, XQKV_STATUS_CHECKPOINT_UNREADABLE, "regular file");
    unlink(path);
    CHECK(mkdir(path, 0700) == 0);
    refused(scratch, XQKV_STATUS_CHECKPOINT_UNREADABLE, "regular file");
    rmdir(path);
}

static void a_pattern_names_the_tensors_of_any_model(void) {
    xqkv_checkpoint checkpoint = at(good_folder);
    xqkv_spec spec;
    char text[8192];
    int64_t needed = 0;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    CHECK_OK(xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    checkpoint.tensor_pattern = "model.decoder.layers.{layer}.encoder_attn.{part}_proj.{kind}";
    checkpoint.query_name = "q", checkpoint.key_name = "k", checkpoint.value_name = "v";
    CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "tensor_pattern", xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    CHECK_OK(xqkv_checkpoint_report(&checkpoint, &spec, NULL, 0, &needed, &error));
    CHECK_REFUSED(XQKV_STATUS_BUFFER_TOO_SMALL, "text_bytes", xqkv_checkpoint_report(&checkpoint, &spec, text, 10, &needed, &error));
    CHECK_OK(xqkv_checkpoint_report(&checkpoint, &spec, text, sizeof text, &needed, &error));
    CHECK((int64_t)strlen(text) + 1 == needed && strstr(text, "\"missing\":[]") != NULL);
    checkpoint.value_name = "x";
    CHECK_OK(xqkv_checkpoint_report(&checkpoint, &spec, text, sizeof text, &needed, &error));
    CHECK(strstr(text, "encoder_attn.x_proj.weight") != NULL);
    checkpoint.tensor_pattern = "decoder.{layer}.{part}";
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "{kind}", xqkv_checkpoint_report(&checkpoint, &spec, text, sizeof text, &needed, &error));
    checkpoint.tensor_pattern = NULL;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "tensor_pattern", xqkv_checkpoint_report(&checkpoint, &spec, text, sizeof text, &needed, &error));
}

static void nulls_and_sizes_are_refused(void) {
    xqkv_spec spec;
    xqkv_checkpoint checkpoint = at(good_folder);
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    CHECK(xqkv_checkpoint_init(NULL, sizeof checkpoint) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK_SIZES(xqkv_checkpoint, checkpoint, xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    CHECK_SIZES(xqkv_spec, spec, xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    CHECK(spec.decoder_width == 0);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "spec", xqkv_spec_read_checkpoint(NULL, &checkpoint, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "checkpoint", xqkv_spec_read_checkpoint(&spec, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_read_checkpoint(NULL, &checkpoint, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "needed_bytes", (xqkv_spec_read_checkpoint(&spec, &checkpoint, &error),
                  xqkv_checkpoint_report(&checkpoint, &spec, NULL, 0, NULL, &error)));
    checkpoint.directory = NULL;
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "directory", xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
}

static void reports_refused_leave_their_memory_alone(void) {
    xqkv_checkpoint checkpoint = at(good_folder);
    xqkv_spec spec;
    char text[64];
    int64_t needed = -1;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    CHECK_OK(xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    memset(text, 'x', sizeof text);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "checkpoint",
                  xqkv_checkpoint_report(NULL, &spec, text, 64, &needed, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "spec",
                  xqkv_checkpoint_report(&checkpoint, NULL, text, 64, &needed, &error));
    CHECK_SIZES(xqkv_checkpoint, checkpoint, xqkv_checkpoint_report(&checkpoint, &spec, text, 64, &needed, &error));
    CHECK_SIZES(xqkv_spec, spec, xqkv_checkpoint_report(&checkpoint, &spec, text, 64, &needed, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "text",
                  xqkv_checkpoint_report(&checkpoint, &spec, NULL, 64, &needed, &error));
    CHECK(needed == -1);
    CHECK_REFUSED(XQKV_STATUS_BUFFER_TOO_SMALL, "text_bytes is 64",
                  xqkv_checkpoint_report(&checkpoint, &spec, text, 64, &needed, &error));
    CHECK_REFUSED(XQKV_STATUS_BUFFER_TOO_SMALL, "text_bytes is -1",
                  xqkv_checkpoint_report(&checkpoint, &spec, text, -1, &needed, &error));
    for (size_t place = 0; place < sizeof text; place++) CHECK(text[place] == 'x');
    char *whole = malloc((size_t)needed);
    CHECK_REFUSED(XQKV_STATUS_BUFFER_TOO_SMALL, "text_bytes",
                  xqkv_checkpoint_report(&checkpoint, &spec, whole, needed - 1, &needed, &error));
    CHECK_OK(xqkv_checkpoint_report(&checkpoint, &spec, whole, needed, &needed, &error));
    CHECK(whole[0] == '{' && strlen(whole) + 1 == (size_t)needed);
    free(whole);
}

/* The elements of a tensor of a safetensors file that was read whole; its header begins behind 8 bytes of length. */
static const void *tensor_in(const char *file, const char *name) {
    char quoted[256];
    uint64_t header;
    long long begin = 0;
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    memcpy(&header, file, sizeof header);
    const char *entry = strstr(file + 8, quoted);
    const char *offsets = entry == NULL ? NULL : strstr(entry, "\"data_offsets\":[");
    if (!CHECK(offsets != NULL && sscanf(offsets, "\"data_offsets\":[%lld", &begin) == 1)) exit(EXIT_FAILURE);
    return file + 8 + header + begin;
}

/* Puts every tensor of the good checkpoint by hand, as an engine does that reads files itself. */
static void put_from_file(xqkv_update *update, const char *file) {
    static const char letters[] = {'q', 'k', 'v'};
    for (int layer = 0; layer < 2; layer++)
        for (int part = QUERY; part <= VALUE; part++)
            for (int kind = XQKV_KIND_WEIGHT; kind <= (part == KEY ? XQKV_KIND_WEIGHT : XQKV_KIND_BIAS); kind++) {
                char name[128];
                snprintf(name, sizeof name, "model.decoder.layers.%d.encoder_attn.%c_proj.%s", layer, letters[part],
                         kind == XQKV_KIND_WEIGHT ? "weight" : "bias");
                xqkv_tensor tensor = test_tensor(tensor_in(file, name), 384, kind == XQKV_KIND_WEIGHT ? 384 : 1);
                tensor.dtype = XQKV_DTYPE_BF16;
                CHECK_OK(xqkv_update_put(update, layer, test_parts[part], kind, &tensor, &error));
            }
}

enum { WIDTH = 384, ROWS = 3 };

/* Runs layer 1 on some rows: Q, K and V behind each other, a rank's heads in their columns. */
static void run_rank(const xqkv_projection *projection, float *out, int64_t first_column) {
    static float rows[ROWS * WIDTH];
    xqkv_forward call;
    xqkv_view *views[] = {&call.query, &call.key, &call.value};
    for (int at = 0; at < ROWS * WIDTH; at++) rows[at] = (float)(at % 31 - 15) * 0.125f;
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    call.layer = 1;
    call.decoder.data = call.encoder.data = rows, call.decoder.rows = call.encoder.rows = ROWS;
    call.decoder.dtype = call.encoder.dtype = XQKV_DTYPE_F32;
    for (int part = QUERY; part <= VALUE; part++) {
        views[part]->data = out + part * ROWS * WIDTH + first_column, views[part]->row_stride = WIDTH;
        views[part]->dtype = XQKV_DTYPE_F32;
    }
    CHECK_OK(run_forward(projection, &call, NULL, &error));
}

/* One rank's projection, loaded from `file` if it is given and else by the library. */
static void load_and_run(const xqkv_context *context, int64_t rank, int64_t rank_count, const char *file, float *out) {
    xqkv_checkpoint checkpoint = at(good_folder);
    xqkv_spec spec;
    xqkv_projection_options options;
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    CHECK_OK(xqkv_spec_read_checkpoint(&spec, &checkpoint, &error));
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.rank = rank, options.rank_count = rank_count;
    CHECK_OK(xqkv_projection_create(context, &spec, &options, &projection, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    if (file != NULL) put_from_file(update, file);
    else CHECK_OK(xqkv_update_read_checkpoint(update, &checkpoint, &error));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "query weight of layer 0",
                  xqkv_update_read_checkpoint(update, &checkpoint, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    run_rank(projection, out, rank * WIDTH / rank_count);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

/* In bf16 weights with f32 rows, which only the host mixes; on CUDA `xqkv verify` compares ranks. */
static void a_checkpoint_read_by_ranks_has_the_bits_of_one_put_by_hand(void) {
    static float by_hand[3 * ROWS * WIDTH], by_ranks[3 * ROWS * WIDTH];
    size_t bytes;
    char *file = read_whole(good_folder, "model.safetensors", &bytes);
    xqkv_context *context = test_context(1);
    memset(by_hand, 0xff, sizeof by_hand), memset(by_ranks, 0xff, sizeof by_ranks);
    load_and_run(context, 0, 1, file, by_hand);
    for (int64_t rank = 0; rank < 3; rank++) load_and_run(context, rank, 3, NULL, by_ranks);
    CHECK(memcmp(by_hand, by_ranks, sizeof by_hand) == 0);
    for (size_t place = 0; place < sizeof by_hand / sizeof *by_hand; place++) CHECK(!isnan(by_hand[place]));
    CHECK_OK(xqkv_context_destroy(context, &error));
    free(file);
}

int main(int count, char **arguments) {
    if (count != 3) return EXIT_FAILURE;
    good_folder = arguments[1], scratch = arguments[2];
    a_good_checkpoint_gives_its_spec();
    specs_that_do_not_fit_are_refused();
    damaged_checkpoints_are_refused();
    files_that_are_no_files_are_refused();
    a_pattern_names_the_tensors_of_any_model();
    nulls_and_sizes_are_refused();
    reports_refused_leave_their_memory_alone();
    if (!on_cuda()) a_checkpoint_read_by_ranks_has_the_bits_of_one_put_by_hand();
    return check_done();
}
