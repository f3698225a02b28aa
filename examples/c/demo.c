/* The main job, as an engine does it: each rank loads its shard of a Whisper checkpoint and projects Q, K and V into
   common buffers; beside it the workaround of vLLM issue #7397, a fused QKV layer applied to both inputs.

   usage: demo CHECKPOINT DATA    DATA has the inputs and expected outputs as raw files, see xtask/src/demo.rs */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xqkv.h>

enum { LAYERS = 2, RANKS = 2, RUNS = 101, QUERY = 0, KEY = 1, VALUE = 2, PARTS = 3 };

/* What the model's own modules were given and computed in one layer, and how large the terms of each sum were. */
typedef struct {
    float *decoder, *expected[PARTS];
    double *magnitude[PARTS];
} layer_data;

static xqkv_spec spec;
static xqkv_checkpoint checkpoint;
static xqkv_context *context;
static float *encoder;
static layer_data layers[LAYERS];
static unsigned short *fused_weight; /* layer 0's [Wq; Wk; Wv] in bf16 */
static float *fused_bias;            /* [bq; 0; bv]: engines make up the key bias that Whisper lacks */
static int64_t decoder_rows, encoder_rows, width;
static int failures;

/* One row of the table: a call on some ranks. */
typedef struct job {
    const char *name;
    int64_t decoder_rows, encoder_rows, layer_count;
    int fused, rank_count;
    float *outputs[PARTS];   /* [layers, rows, heads, head_width], all ranks' heads */
    float *fused_output[RANKS];
} job;

typedef struct {
    const job *job;
    int rank;
    xqkv_projection *projection;
    int64_t executed;
    double seconds;
} rank_run;

static void require(xqkv_status status, const xqkv_error *error) {
    if (status == XQKV_STATUS_OK) return;
    fprintf(stderr, "demo: %s: %s\n", xqkv_status_name(status), error->message);
    exit(2);
}

static void *required(void *memory, const char *what) {
    if (memory == NULL) fprintf(stderr, "demo: no %s\n", what), exit(2);
    return memory;
}

static void *read_file(const char *folder, const char *name, size_t *bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = required(fopen(path, "rb"), path);
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    void *data = required(malloc(*bytes), "memory");
    if (fread(data, 1, *bytes, file) != *bytes) required(NULL, path);
    fclose(file);
    return data;
}

static void *read_layer_file(const char *folder, int layer, const char *name, size_t *bytes) {
    char path[64];
    snprintf(path, sizeof path, "layer%d_%s.bin", layer, name);
    return read_file(folder, path, bytes);
}

static void read_data(const char *folder) {
    static const char *names[PARTS] = {"query", "key", "value"};
    static const char *magnitudes[PARTS] = {"query_magnitude", "key_magnitude", "value_magnitude"};
    size_t bytes;
    width = spec.decoder_width;
    encoder = read_file(folder, "encoder.bin", &bytes);
    encoder_rows = (int64_t)(bytes / sizeof(float)) / width;
    for (int layer = 0; layer < LAYERS; layer++) {
        layers[layer].decoder = read_layer_file(folder, layer, "decoder", &bytes);
        decoder_rows = (int64_t)(bytes / sizeof(float)) / width;
        for (int part = 0; part < PARTS; part++) {
            layers[layer].expected[part] = read_layer_file(folder, layer, names[part], &bytes);
            layers[layer].magnitude[part] = read_layer_file(folder, layer, magnitudes[part], &bytes);
        }
    }
    fused_weight = read_layer_file(folder, 0, "fused_weight", &bytes);
    fused_bias = read_layer_file(folder, 0, "fused_bias", &bytes);
}

/* Loads this rank's shard of every layer from the checkpoint. */
static xqkv_projection *load_shard(int rank, int rank_count) {
    xqkv_error error;
    xqkv_projection_options options;
    xqkv_projection *projection;
    xqkv_update *update;
    xqkv_projection_options_init(&options, sizeof options);
    options.rank = rank, options.rank_count = rank_count;
    require(xqkv_projection_create(context, &spec, &options, &projection, &error), &error);
    require(xqkv_update_begin(projection, &update, &error), &error);
    require(xqkv_update_read_checkpoint(update, &checkpoint, &error), &error);
    require(xqkv_update_commit(update, NULL, &error), &error);
    return projection;
}

/* Puts the rows that a rank has of the fused layer, which has query heads only, as one tensor. */
static void put_fused(xqkv_update *update, int kind, const void *whole, size_t row_bytes, int rank, int rank_count) {
    xqkv_error error;
    xqkv_tensor tensor;
    int64_t rows = spec.query_heads * spec.head_width, own = rows / rank_count;
    char *cut = required(malloc((size_t)(PARTS * own) * row_bytes), "memory");
    for (int part = 0; part < PARTS; part++)
        memcpy(cut + (size_t)(part * own) * row_bytes,
               (const char *)whole + (size_t)(part * rows + rank * own) * row_bytes, (size_t)own * row_bytes);
    xqkv_tensor_init(&tensor, sizeof tensor);
    tensor.data = cut, tensor.rows = PARTS * own, tensor.extent = XQKV_EXTENT_SHARD;
    tensor.dtype = kind == XQKV_KIND_WEIGHT ? XQKV_DTYPE_BF16 : XQKV_DTYPE_F32;
    tensor.columns = kind == XQKV_KIND_WEIGHT ? width : 1;
    require(xqkv_update_put(update, 0, XQKV_PART_QUERY, kind, &tensor, &error), &error);
    free(cut);
}

static xqkv_projection *load_fused(int rank, int rank_count) {
    xqkv_error error;
    xqkv_spec fused = spec;
    xqkv_projection_options options;
    xqkv_projection *projection;
    xqkv_update *update;
    fused.query_heads = PARTS * spec.query_heads, fused.key_value_heads = 0, fused.layer_count = 1;
    xqkv_projection_options_init(&options, sizeof options);
    options.rank = rank, options.rank_count = rank_count;
    require(xqkv_projection_create(context, &fused, &options, &projection, &error), &error);
    require(xqkv_update_begin(projection, &update, &error), &error);
    put_fused(update, XQKV_KIND_WEIGHT, fused_weight, (size_t)width * sizeof *fused_weight, rank, rank_count);
    put_fused(update, XQKV_KIND_BIAS, fused_bias, sizeof *fused_bias, rank, rank_count);
    require(xqkv_update_commit(update, NULL, &error), &error);
    return projection;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int compare_seconds(const void *one, const void *two) {
    double difference = *(const double *)one - *(const double *)two;
    return (difference > 0) - (difference < 0);
}

static int64_t forward(const xqkv_projection *projection, const xqkv_forward *call) {
    xqkv_error error;
    xqkv_stats stats;
    xqkv_stats_init(&stats, sizeof stats);
    require(xqkv_projection_forward(projection, call, &stats, &error), &error);
    return stats.multiply_adds;
}

static void set_input(xqkv_input *input, const float *data, int64_t rows) {
    input->data = data, input->rows = rows, input->dtype = XQKV_DTYPE_F32;
}

/* This rank's heads of a buffer that has every rank's, side by side in each row. */
static void set_view(xqkv_view *view, float *output, int64_t first_head) {
    if (output == NULL) return;
    view->data = output + first_head * spec.head_width, view->dtype = XQKV_DTYPE_F32;
    view->row_stride = spec.query_heads * spec.head_width;
    view->layer_stride = encoder_rows * view->row_stride;
}

/* Q from the decoder's rows, K and V from the encoder's: whichever of the two the job has. */
static int64_t run_ours(const rank_run *run) {
    const job *job = run->job;
    int64_t first_head = run->rank * spec.query_heads / job->rank_count;
    xqkv_forward call;
    xqkv_forward_init(&call, sizeof call);
    call.layer_count = job->layer_count;
    set_input(&call.decoder, layers[0].decoder, job->decoder_rows);
    set_input(&call.encoder, encoder, job->encoder_rows);
    set_view(&call.query, job->outputs[QUERY], first_head);
    set_view(&call.key, job->outputs[KEY], first_head);
    set_view(&call.value, job->outputs[VALUE], first_head);
    return forward(run->projection, &call);
}

/* All of [Wq; Wk; Wv] on the decoder's rows, then on the encoder's; most of it nobody reads. */
static int64_t run_fused(const rank_run *run) {
    const job *job = run->job;
    float *output = job->fused_output[run->rank];
    int64_t columns = PARTS * spec.query_heads * spec.head_width / job->rank_count;
    xqkv_forward call;
    xqkv_forward_init(&call, sizeof call);
    set_input(&call.decoder, layers[0].decoder, job->decoder_rows);
    call.query.data = output, call.query.dtype = XQKV_DTYPE_F32;
    int64_t executed = forward(run->projection, &call);
    if (job->encoder_rows == 0) return executed;
    set_input(&call.decoder, encoder, job->encoder_rows);
    call.query.data = output + job->decoder_rows * columns;
    return executed + forward(run->projection, &call);
}

/* One rank's thread. */
static void *run_rank(void *argument) {
    rank_run *run = argument;
    const job *job = run->job;
    xqkv_error error;
    double seconds[RUNS];
    run->projection = job->fused ? load_fused(run->rank, job->rank_count) : load_shard(run->rank, job->rank_count);
    for (int count = 0; count < RUNS; count++) {
        double begin = now();
        run->executed = job->fused ? run_fused(run) : run_ours(run);
        seconds[count] = now() - begin;
    }
    qsort(seconds, RUNS, sizeof *seconds, compare_seconds);
    run->seconds = seconds[RUNS / 2];
    require(xqkv_projection_destroy(run->projection, &error), &error);
    return NULL;
}

/* How far a result is from the model's, in units of how far it may be: see xqkv_projection_forward. Both were rounded
   to f32, half a unit in the last place each. */
static double error_over_bound(float result, float expected, double magnitude) {
    double steps = (double)(width + 2) * ldexp(1, -24), size = fmax(fabs(result), fabs(expected));
    double bound = steps / (1 - steps) * magnitude + 2 * size * ldexp(1, -24);
    double error = fabs((double)result - (double)expected);
    return isnan(error) ? INFINITY : error / bound;
}

/* Where the job left an output: column of all heads' columns, in the common buffer or in a rank's fused one. */
static float output_at(const job *job, int part, int64_t layer, int64_t row, int64_t column) {
    int64_t columns = spec.query_heads * spec.head_width, own = columns / job->rank_count;
    if (!job->fused) return job->outputs[part][(layer * encoder_rows + row) * columns + column];
    int64_t fused_row = part == QUERY ? row : job->decoder_rows + row;
    return job->fused_output[column / own][fused_row * PARTS * own + part * own + column % own];
}

static double largest_error(const job *job) {
    double largest = 0;
    int64_t columns = spec.query_heads * spec.head_width;
    for (int part = 0; part < PARTS; part++)
        for (int64_t layer = 0; layer < job->layer_count; layer++)
            for (int64_t row = 0; row < (part == QUERY ? job->decoder_rows : job->encoder_rows); row++)
                for (int64_t column = 0; column < columns; column++) {
                    int64_t at = row * columns + column;
                    double error = error_over_bound(output_at(job, part, layer, row, column),
                                                    layers[layer].expected[part][at], layers[layer].magnitude[part][at]);
                    largest = fmax(largest, error);
                }
    return largest;
}

static float *poisoned(int64_t elements) {
    float *memory = required(malloc((size_t)(elements + 1) * sizeof(float)), "memory");
    for (int64_t at = 0; at < elements; at++) memory[at] = NAN;
    return memory;
}

static void make_outputs(job *job) {
    int64_t columns = spec.query_heads * spec.head_width;
    if (job->decoder_rows > 0) job->outputs[QUERY] = poisoned(job->decoder_rows * columns);
    if (job->encoder_rows > 0) job->outputs[KEY] = poisoned(job->layer_count * encoder_rows * columns);
    if (job->encoder_rows > 0) job->outputs[VALUE] = poisoned(job->layer_count * encoder_rows * columns);
    for (int rank = 0; rank < job->rank_count; rank++)
        job->fused_output[rank] = poisoned((job->decoder_rows + job->encoder_rows) * PARTS * columns / job->rank_count);
}

static void free_outputs(job *job) {
    for (int part = 0; part < PARTS; part++) free(job->outputs[part]);
    for (int rank = 0; rank < job->rank_count; rank++) free(job->fused_output[rank]);
}

/* Runs a job on its ranks, one thread each, and prints its line. */
static void run_job(job job) {
    pthread_t threads[RANKS];
    rank_run runs[RANKS] = {0};
    int64_t executed = 0, columns = spec.query_heads * spec.head_width;
    int64_t necessary = (job.decoder_rows + 2 * job.layer_count * job.encoder_rows) * columns * width;
    double seconds = 0;
    make_outputs(&job);
    for (int rank = 0; rank < job.rank_count; rank++) {
        runs[rank].job = &job, runs[rank].rank = rank;
        pthread_create(&threads[rank], NULL, run_rank, &runs[rank]);
    }
    for (int rank = 0; rank < job.rank_count; rank++) {
        pthread_join(threads[rank], NULL);
        executed += runs[rank].executed;
        seconds = fmax(seconds, runs[rank].seconds);
    }
    double error = largest_error(&job);
    int good = error <= 1 && (job.fused || executed == necessary);
    printf("%-24s %5d  %12lld  %12lld  %5.3f  %11.3f  %8.1f us%s\n", job.name, job.rank_count, (long long)executed,
           (long long)necessary, (double)necessary / (double)executed, error, seconds * 1e6, good ? "" : "  WRONG");
    failures += !good;
    free_outputs(&job);
}

int main(int count, char **arguments) {
    xqkv_error error;
    xqkv_context_options options;
    if (count != 3) return fprintf(stderr, "usage: %s CHECKPOINT DATA\n", arguments[0]), 2;
    xqkv_checkpoint_init(&checkpoint, sizeof checkpoint);
    checkpoint.directory = arguments[1];
    xqkv_spec_init(&spec, sizeof spec);
    require(xqkv_spec_read_checkpoint(&spec, &checkpoint, &error), &error);
    xqkv_context_options_init(&options, sizeof options);
    options.thread_count = 1; /* each rank's own thread */
    require(xqkv_context_create(&options, &context, &error), &error);
    read_data(arguments[2]);

    printf("%-24s %5s  %12s  %12s  %5s  %11s  %11s\n", "call", "ranks", "executed", "necessary", "ratio", "error/bound",
           "median time");
    for (int ranks = 1; ranks <= RANKS; ranks++) {
        run_job((job){"prefill", decoder_rows, encoder_rows, 1, 0, ranks, {0}, {0}});
        run_job((job){"  fused QKV twice", decoder_rows, encoder_rows, 1, 1, ranks, {0}, {0}});
        run_job((job){"decode step", 1, 0, 1, 0, ranks, {0}, {0}});
        run_job((job){"  fused QKV", 1, 0, 1, 1, ranks, {0}, {0}});
        run_job((job){"cache fill, all layers", 0, encoder_rows, LAYERS, 0, ranks, {0}, {0}});
    }
    require(xqkv_context_destroy(context, &error), &error);
    failures += xqkv_handle_count() != 0;
    printf("\nexecuted, necessary: multiply-adds of all ranks. fused QKV: the workaround of vLLM issue #7397, run through "
           "the same API.\n%s\n", failures ? "FAILED" : "Every call of ours ran exactly what was necessary.");
    return failures ? 1 : 0;
}
