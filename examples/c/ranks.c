/* Cross-attention's Q, K and V by several processes, on the host over MPI or on GPUs over NCCL, with the same code: each
   rank has a part of the encoder's rows and some heads, and all get what they need of the others'. Results are held
   against a plain double loop.

   usage: mpirun -n 4 ranks [host|cuda]    cuda: a GPU for each rank, MPI only carries NCCL's unique id */
#include <dlfcn.h>
#include <math.h>
#include <xqkv_mpi.h>

enum { QUERY, KEY, VALUE, PARTS, DECODER_ROWS = 5, CHECK_EVERY = 37 };

/* Sizes of a model's layer, and how its ranks work together. */
typedef struct {
    const char *name;
    int64_t width, query_heads, key_value_heads, head_width, encoder_rows;
    uint64_t flags;
} model;

static const model models[] = {
    {"Whisper tiny", 384, 6, 6, 64, 1500, 0},
    {"grouped heads, as Llama 3.2 Vision has", 512, 8, 2, 64, 1601, XQKV_PROJECTION_FLAG_SHARE_REPLICAS},
};

/* One kind of call: what is gathered of it, and whether the encoder's rows are spread over the ranks. */
typedef struct {
    const char *name;
    int64_t decoder_rows;
    uint32_t flags;
    int has_encoder, is_spread;
} job;

static const job jobs[] = {
    {"prefill, heads stay where they are", 0, 0, 1, 0},
    {"prefill, rows spread over ranks", DECODER_ROWS, 0, 1, 1},
    {"prefill, rows spread, K and V gathered", 0, XQKV_FORWARD_FLAG_GATHER_KEY_VALUE, 1, 1},
    {"decode step, Q stays", DECODER_ROWS, 0, 0, 0},
    {"decode step, Q gathered", DECODER_ROWS, XQKV_FORWARD_FLAG_GATHER_QUERY, 0, 0},
};

static int rank, rank_count, on_cuda, failures;
static xqkv_error error;

static void require(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "ranks: rank %d of %d: %s: %s\n", rank, rank_count, what, error.message);
    MPI_Abort(MPI_COMM_WORLD, 2);
}
#define REQUIRE(call) require((call) == XQKV_STATUS_OK, #call)

/* Memory that the backend works in: the process's, or the device's by the driver's own functions. */
static void *driver(const char *name) {
    static void *library;
    const char *path = getenv("XQKV_CUDA_LIBRARY");
    if (library == NULL) library = dlopen(path != NULL ? path : "libcuda.so.1", RTLD_NOW);
    void *function = library == NULL ? NULL : dlsym(library, name);
    require(function != NULL, name);
    return function;
}
#define DRIVER(name, types, arguments)                  \
    do {                                                \
        int(*function) types;                           \
        *(void **)&function = driver(name);             \
        require(function arguments == 0, name);         \
    } while (0)

/* Opens this process's device: ranks of one machine have one each. */
static int open_device(void) {
    MPI_Comm neighbours;
    void *current = NULL;
    int device = 0, count = 1;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &neighbours);
    MPI_Comm_rank(neighbours, &device);
    MPI_Comm_free(&neighbours);
    DRIVER("cuInit", (unsigned), (0));
    DRIVER("cuDeviceGetCount", (int *), (&count));
    require(device < count, "more ranks on this machine than devices");
    DRIVER("cuDevicePrimaryCtxRetain", (void **, int), (&current, device));
    DRIVER("cuCtxSetCurrent", (void *), (current));
    return device;
}

static void *place(int64_t bytes) {
    uint64_t device = 0;
    void *memory = NULL;
    if (on_cuda) DRIVER("cuMemAlloc_v2", (uint64_t *, size_t), (&device, (size_t)bytes + 256));
    else require(posix_memalign(&memory, 256, (size_t)bytes + 256) == 0, "no memory");
    return on_cuda ? (void *)(uintptr_t)device : memory;
}

static void give_back(void *memory) {
    if (!on_cuda) free(memory);
    else if (memory != NULL) DRIVER("cuMemFree_v2", (uint64_t), ((uintptr_t)memory));
}

static void put(void *target, const void *source, int64_t bytes) {
    if (on_cuda) DRIVER("cuMemcpyHtoD_v2", (uint64_t, const void *, size_t), ((uintptr_t)target, source, (size_t)bytes));
    else memcpy(target, source, (size_t)bytes);
}

static void fetch(void *target, const void *source, int64_t bytes) {
    if (on_cuda) DRIVER("cuMemcpyDtoH_v2", (void *, uint64_t, size_t), (target, (uintptr_t)source, (size_t)bytes));
    else memcpy(target, source, (size_t)bytes);
}

/* The numbers: any rank can compute any of them. */
static float number(int64_t salt, int64_t row, int64_t column) {
    uint64_t mixed = (uint64_t)(row * 1000003 + column * 7919 + salt * 104729);
    mixed ^= mixed >> 7, mixed *= 0x9e3779b97f4a7c15u, mixed ^= mixed >> 33;
    return (float)((int64_t)(mixed % 257) - 128) / 256;
}

static float weight(int part, int64_t output, int64_t input) { return number(part, output, input); }
static float row_of(int part, int64_t row, int64_t input) { return number(part == QUERY ? 10 : 11, row, input); }

/* How this rank reaches the others; the one thing that differs between backends. */
typedef struct {
    xqkv_comm *comm;
    xqkv_mpi_comm *over_mpi;
} reach;

static reach open_reach(const xqkv_context *context) {
    reach made = {NULL, NULL};
    xqkv_unique_id id;
    if (!on_cuda) {
        REQUIRE(xqkv_mpi_comm_create(MPI_COMM_WORLD, NULL, &made.over_mpi, &error));
        made.comm = made.over_mpi->comm;
        return made;
    }
    if (rank == 0) REQUIRE(xqkv_unique_id_create(&id, &error));
    MPI_Bcast(&id, (int)sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    REQUIRE(xqkv_comm_create_nccl(context, NULL, &id, rank, rank_count, &made.comm, &error));
    return made;
}

static void close_reach(reach made) {
    if (on_cuda) REQUIRE(xqkv_comm_destroy(made.comm, &error));
    else REQUIRE(xqkv_mpi_comm_destroy(made.over_mpi, &error));
}

static int64_t heads_of(const model *of, int part) { return part == QUERY ? of->query_heads : of->key_value_heads; }

static xqkv_spec spec_of(const model *of) {
    xqkv_spec spec;
    REQUIRE(xqkv_spec_init(&spec, sizeof spec));
    spec.weight_dtype = XQKV_DTYPE_F32;
    spec.layer_count = 1;
    spec.decoder_width = spec.encoder_width = of->width;
    spec.query_heads = of->query_heads;
    spec.key_value_heads = of->key_value_heads;
    spec.head_width = of->head_width;
    return spec;
}

/* Whole weights, of which the library keeps this rank's heads. */
static void put_weights(const model *of, xqkv_projection *projection) {
    static const int32_t parts[] = {XQKV_PART_QUERY, XQKV_PART_KEY, XQKV_PART_VALUE};
    xqkv_update *update = NULL;
    REQUIRE(xqkv_update_begin(projection, &update, &error));
    for (int part = QUERY; part < PARTS; part++) {
        int64_t outputs = heads_of(of, part) * of->head_width;
        float *elements = (float *)malloc((size_t)(outputs * of->width) * sizeof(float));
        require(elements != NULL, "no memory");
        for (int64_t at = 0; at < outputs * of->width; at++)
            elements[at] = weight(part, at / of->width, at % of->width);
        xqkv_tensor tensor;
        REQUIRE(xqkv_tensor_init(&tensor, sizeof tensor));
        tensor.dtype = XQKV_DTYPE_F32;
        tensor.data = elements;
        tensor.rows = outputs;
        tensor.columns = of->width;
        REQUIRE(xqkv_update_put(update, 0, parts[part], XQKV_KIND_WEIGHT, &tensor, &error));
        free(elements);
    }
    REQUIRE(xqkv_update_commit(update, NULL, &error));
}

static xqkv_projection *open_projection(const model *of, const xqkv_context *context, const xqkv_comm *comm) {
    xqkv_spec spec = spec_of(of);
    xqkv_projection_options options;
    xqkv_projection *projection = NULL;
    REQUIRE(xqkv_projection_options_init(&options, sizeof options));
    REQUIRE(xqkv_projection_options_balance(&options, &spec, rank, rank_count, &error));
    options.comm = comm;
    options.flags = of->flags;
    REQUIRE(xqkv_projection_create(context, &spec, &options, &projection, &error));
    put_weights(of, projection);
    return projection;
}

/* This rank's rows of an input, in the backend's memory. */
static void *place_rows(int part, int64_t first, int64_t count, int64_t width) {
    float *rows = (float *)malloc((size_t)(count * width + 1) * sizeof(float));
    require(rows != NULL, "no memory");
    for (int64_t at = 0; at < count * width; at++) rows[at] = row_of(part, first + at / width, at % width);
    void *placed = place(count * width * 4);
    put(placed, rows, count * width * 4);
    free(rows);
    return placed;
}

/* Which heads a rank's output has. */
typedef struct {
    int64_t begin, count;
} head_range;

static head_range range_of(const model *of, const job *now, const xqkv_shard *shard, int part) {
    uint32_t flag = part == QUERY ? XQKV_FORWARD_FLAG_GATHER_QUERY : XQKV_FORWARD_FLAG_GATHER_KEY_VALUE;
    head_range own = {shard->query_head_begin, shard->query_head_count}, all = {0, heads_of(of, part)};
    if (part != QUERY) own.begin = shard->key_value_head_begin, own.count = shard->key_value_head_count;
    return now->flags & flag ? all : own;
}

/* Holds some rows of an output against the double loop. */
static void check_output(const model *of, int part, head_range heads, const void *output, int64_t rows) {
    int64_t columns = heads.count * of->head_width, first = heads.begin * of->head_width;
    float *given = (float *)malloc((size_t)(rows * columns + 1) * 4);
    require(given != NULL, "no memory");
    fetch(given, output, rows * columns * 4);
    for (int64_t row = 0; row < rows; row += row + 1 == rows ? 1 : (row + CHECK_EVERY < rows ? CHECK_EVERY : rows - 1 - row))
        for (int64_t column = 0; column < columns; column++) {
            double sum = 0, magnitude = 0;
            for (int64_t input = 0; input < of->width; input++) {
                double term = (double)row_of(part, row, input) * (double)weight(part, first + column, input);
                sum += term, magnitude += fabs(term);
            }
            if (fabs((double)given[row * columns + column] - sum) <= 1e-6 * magnitude) continue;
            if (failures++ < 3)
                printf("rank %d: part %d, row %lld, column %lld is %g, expected %g\n", rank, part, (long long)row,
                       (long long)column, (double)given[row * columns + column], sum);
        }
    free(given);
}

static xqkv_view view_of(int64_t rows, head_range heads, int64_t width) {
    xqkv_view view;
    int64_t bytes = rows * heads.count * width * 4;
    memset(&view, 0, sizeof view);
    view.dtype = XQKV_DTYPE_F32;
    view.data = place(bytes);
    float *poison = (float *)malloc((size_t)bytes + 4);
    require(poison != NULL, "no memory");
    memset(poison, 0xff, (size_t)bytes);
    put(view.data, poison, bytes);
    free(poison);
    return view;
}

/* Prints what this rank and all ranks executed, against what the uncut layer needs. */
static void report(const model *of, const job *now, const xqkv_stats *stats, int64_t encoder_rows) {
    int64_t own[3] = {stats->multiply_adds, stats->received_bytes, stats->transfers}, all[64][3], executed = 0;
    int64_t columns = of->query_heads * now->decoder_rows + 2 * of->key_value_heads * encoder_rows;
    double needed = (double)(columns * of->head_width * of->width);
    require(rank_count <= 64, "more than 64 ranks");
    MPI_Gather(own, 3, MPI_INT64_T, all, 3, MPI_INT64_T, 0, MPI_COMM_WORLD);
    if (rank != 0) return;
    printf("  %s\n", now->name);
    for (int other = 0; other < rank_count; other++) {
        executed += all[other][0];
        printf("    rank %d: %lld multiply-adds, %lld bytes received in %lld transfers\n", other,
               (long long)all[other][0], (long long)all[other][1], (long long)all[other][2]);
    }
    printf("    group: executed / necessary %.3f\n", (double)executed / needed);
}

static void lend_workspace(xqkv_projection *projection, xqkv_forward *call, xqkv_plan **plan) {
    xqkv_workspace sizes;
    REQUIRE(xqkv_workspace_init(&sizes, sizeof sizes));
    REQUIRE(xqkv_plan_create(projection, call, NULL, plan, &error));
    REQUIRE(xqkv_plan_get_workspace(*plan, &sizes, &error));
    call->plan = *plan;
    call->workspace = place(sizes.recommended_bytes);
    call->workspace_bytes = sizes.recommended_bytes;
}

static void run_job(const model *of, const job *now, xqkv_projection *projection, const xqkv_shard *shard) {
    xqkv_forward call;
    xqkv_stats stats;
    xqkv_plan *plan = NULL;
    int64_t rank_rows[64], first = 0, rows = now->has_encoder ? of->encoder_rows : 0;
    head_range heads[PARTS];
    for (int part = QUERY; part < PARTS; part++) heads[part] = range_of(of, now, shard, part);
    /* Each rank's share of the rows; they need not be even. */
    for (int other = 0; other < rank_count; other++) {
        rank_rows[other] = rows * (other + 1) / rank_count - rows * other / rank_count;
        if (other < rank && now->is_spread) first += rank_rows[other];
    }
    REQUIRE(xqkv_forward_init(&call, sizeof call));
    REQUIRE(xqkv_stats_init(&stats, sizeof stats));
    call.flags = now->flags;
    call.decoder.rows = now->decoder_rows;
    call.encoder.rows = now->is_spread ? rank_rows[rank] : rows;
    call.decoder.dtype = call.encoder.dtype = XQKV_DTYPE_F32;
    if (now->is_spread) call.encoder_rank_rows = rank_rows;
    if (call.decoder.rows > 0) call.decoder.data = place_rows(QUERY, 0, call.decoder.rows, of->width);
    if (call.encoder.rows > 0) call.encoder.data = place_rows(KEY, first, call.encoder.rows, of->width);
    call.query = view_of(now->decoder_rows, heads[QUERY], of->head_width);
    call.key = view_of(rows, heads[KEY], of->head_width);
    call.value = view_of(rows, heads[VALUE], of->head_width);
    lend_workspace(projection, &call, &plan);
    REQUIRE(xqkv_projection_forward(projection, &call, &stats, &error));
    if (on_cuda) DRIVER("cuCtxSynchronize", (void), ());
    check_output(of, QUERY, heads[QUERY], call.query.data, now->decoder_rows);
    check_output(of, KEY, heads[KEY], call.key.data, rows);
    check_output(of, VALUE, heads[VALUE], call.value.data, rows);
    report(of, now, &stats, rows);
    REQUIRE(xqkv_plan_destroy(plan, &error));
    void *lent[] = {(void *)(uintptr_t)call.decoder.data, (void *)(uintptr_t)call.encoder.data, call.query.data,
                    call.key.data, call.value.data, call.workspace};
    for (int at = 0; at < 6; at++) give_back(lent[at]);
}

static void run_model(const model *of, const xqkv_context *context, const xqkv_comm *comm) {
    xqkv_projection *projection = open_projection(of, context, comm);
    xqkv_shard shard;
    REQUIRE(xqkv_shard_init(&shard, sizeof shard));
    REQUIRE(xqkv_projection_get_shard(projection, &shard, &error));
    if (rank == 0) printf("%s, %d ranks\n", of->name, rank_count);
    for (size_t at = 0; at < sizeof jobs / sizeof *jobs; at++) run_job(of, &jobs[at], projection, &shard);
    REQUIRE(xqkv_projection_destroy(projection, &error));
}

int main(int count, char **arguments) {
    int given = MPI_THREAD_SINGLE, all = 0;
    MPI_Init_thread(&count, &arguments, MPI_THREAD_FUNNELED, &given);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &rank_count);
    on_cuda = count > 1 && strcmp(arguments[1], "cuda") == 0;
    xqkv_context_options options;
    xqkv_context *context = NULL;
    REQUIRE(xqkv_context_options_init(&options, sizeof options));
    options.backend = on_cuda ? XQKV_BACKEND_CUDA : XQKV_BACKEND_HOST;
    if (on_cuda) options.device = open_device();
    else options.thread_count = 1; /* ranks of one machine share its cores */
    REQUIRE(xqkv_context_create(&options, &context, &error));
    reach others = open_reach(context);
    for (size_t at = 0; at < sizeof models / sizeof *models; at++) run_model(&models[at], context, others.comm);
    close_reach(others);
    REQUIRE(xqkv_context_destroy(context, &error));
    MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0) printf(all == 0 ? "all results as expected\n" : "%d results are wrong\n", all);
    MPI_Finalize();
    return all == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
