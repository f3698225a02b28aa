/* Ranks as threads, each with a device of its own, and communicators over the simulated NCCL. */
#ifndef NCCL_H
#define NCCL_H

/* memmem */
#define _GNU_SOURCE
#include "gpu.h"
#include <pthread.h>
#include <time.h>

enum { MOST_RANKS = 4, ROWS = 3, WORKSPACE_BYTES = 1 << 16 };

typedef struct {
    size_t size;
    unsigned magic, version;
    int blocking, rest;
} nccl_config;

int ncclGetUniqueId(xqkv_unique_id *id);
int ncclCommInitRankConfig(void **comm, int count, xqkv_unique_id id, int rank, nccl_config *config);
int ncclCommGetAsyncError(void *comm, int *state);
int ncclCommCount(void *comm, int *count);
int ncclCommDestroy(void *comm);
int ncclCommAbort(void *comm);

/* A rank's thread and all that it has. */
typedef struct {
    int rank, count, device, flags;
    int64_t deadline_ms;
    xqkv_unique_id id;
    xqkv_error error;
    xqkv_context *context;
    xqkv_comm *comm;
    xqkv_projection *projection;
    void *cuda, *stream;
    device_pointer rows[2], results, workspace;
    /* A wait of the ranks for each other, and what a test wants to know afterwards. */
    pthread_barrier_t *all;
    xqkv_status status;
} rank;

typedef void (*rank_body)(rank *);

/* Every line of every log and every message of a rank, one after another. */
static char told[1 << 18];
static size_t told_bytes;
static pthread_mutex_t told_mutex = PTHREAD_MUTEX_INITIALIZER;

static inline void tell(int32_t level, const char *message, void *user) {
    size_t bytes = strlen(message);
    (void)level, (void)user;
    pthread_mutex_lock(&told_mutex);
    if (told_bytes + bytes < sizeof told) memcpy(told + told_bytes, message, bytes), told_bytes += bytes;
    pthread_mutex_unlock(&told_mutex);
}

/* Whether four bytes of the id's random part were told, as they are, in hexadecimal or as decimal numbers. */
static inline int is_told(const xqkv_unique_id *id) {
    static const char *const forms[] = {"%02x%02x%02x%02x", "%02X%02X%02X%02X", "%d, %d, %d, %d", "%c%c%c%c"};
    int found = 0;
    for (int at = 8; at + 4 <= 24; at++) {
        for (int form = 0; form < 4; form++) {
            char text[32];
            const uint8_t *bytes = id->bytes + at;
            size_t length = (size_t)snprintf(text, sizeof text, forms[form], bytes[0], bytes[1], bytes[2], bytes[3]);
            found |= memmem(told, told_bytes, text, length) != NULL;
        }
    }
    return found;
}

static inline int rank_check(const rank *own, xqkv_status given, xqkv_status expected, const char *word, const char *what,
                             int line) {
    if (given != XQKV_STATUS_OK) tell(0, own->error.message, NULL);
    int holds = given == expected && (word == NULL || strstr(own->error.message, word) != NULL);
    if (holds) return 1;
    printf("line %d, rank %d: %s\n    %s: %s\n", line, own->rank, what, xqkv_status_name(given), own->error.message);
    check_failures++;
    return 0;
}

#define RANK_OK(call) rank_check(own, (call), XQKV_STATUS_OK, NULL, #call, __LINE__)
#define RANK_REFUSED(status, word, call) rank_check(own, (call), (status), (word), #call, __LINE__)

static inline void wait_ms(int64_t milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static inline void rank_begin(rank *own) {
    xqkv_context_options options = gpu_options();
    options.device = own->device;
    options.log = tell;
    options.log_level = XQKV_LOG_LEVEL_DEBUG;
    GPU(cuInit(0));
    GPU(cuDevicePrimaryCtxRetain(&own->cuda, own->device));
    GPU(cuCtxSetCurrent(own->cuda));
    RANK_OK(xqkv_context_create(&options, &own->context, &own->error));
}

static inline void rank_end(rank *own) {
    RANK_OK(xqkv_comm_destroy(own->comm, &own->error));
    RANK_OK(xqkv_context_destroy(own->context, &own->error));
    GPU(cuCtxSetCurrent(NULL));
    GPU(cuDevicePrimaryCtxRelease_v2(own->device));
}

static inline xqkv_comm_options rank_options(const rank *own) {
    xqkv_comm_options options;
    CHECK_OK(xqkv_comm_options_init(&options, sizeof options));
    options.deadline_ms = own->deadline_ms;
    options.flags = (uint32_t)own->flags;
    return options;
}

static inline xqkv_status rank_join(rank *own) {
    xqkv_comm_options options = rank_options(own);
    return xqkv_comm_create_nccl(own->context, &options, &own->id, own->rank, own->count, &own->comm, &own->error);
}

/* A projection of this rank's heads, without weights and without a communicator, and what its calls use. */
static inline void rank_prepare(rank *own) {
    xqkv_spec spec = test_spec();
    xqkv_projection_options options;
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.rank = own->rank;
    options.rank_count = own->count;
    RANK_OK(xqkv_projection_create(own->context, &spec, &options, &own->projection, &own->error));
    own->stream = new_stream();
    for (int side = QUERY; side <= KEY; side++)
        own->rows[side] = upload(test_rows(side), sizeof(float) * MOST_ROWS * (size_t)test_inputs[side]);
    GPU(cuMemAlloc_v2(&own->results, sizeof(outputs)));
    GPU(cuMemAlloc_v2(&own->workspace, WORKSPACE_BYTES));
}

static inline void rank_release(rank *own) {
    GPU(cuStreamSynchronize(own->stream));
    RANK_OK(xqkv_projection_destroy(own->projection, &own->error));
    for (int side = QUERY; side <= KEY; side++) GPU(cuMemFree_v2(own->rows[side]));
    GPU(cuMemFree_v2(own->results));
    GPU(cuMemFree_v2(own->workspace));
    GPU(cuStreamDestroy_v2(own->stream));
}

/* Q, K and V of all heads, on every rank. */
static inline xqkv_forward rank_call(rank *own) {
    xqkv_forward call = test_call((outputs *)(uintptr_t)own->results, ROWS, ROWS);
    call.decoder.data = (void *)(uintptr_t)own->rows[QUERY];
    call.encoder.data = (void *)(uintptr_t)own->rows[KEY];
    call.stream = own->stream;
    call.workspace = (void *)(uintptr_t)own->workspace;
    call.workspace_bytes = WORKSPACE_BYTES;
    call.flags = XQKV_FORWARD_FLAG_GATHER_QUERY | XQKV_FORWARD_FLAG_GATHER_KEY_VALUE;
    return call;
}

/* Gathers once, from results of NaN. */
static inline void rank_forward(rank *own) {
    outputs poisoned, out;
    poison(&poisoned);
    write_device(own->results, &poisoned, sizeof poisoned);
    xqkv_forward call = rank_call(own);
    RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    GPU(cuStreamSynchronize(own->stream));
    GPU(cuMemcpyDtoH_v2(&out, own->results, sizeof out));
    for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 0, ROWS, 0));
}

static inline void *rank_thread(void *argument) {
    rank *own = ((void **)argument)[0];
    rank_body body;
    memcpy(&body, &((void **)argument)[1], sizeof body);
    body(own);
    return NULL;
}

/* Runs the body as every rank. `change` may make ranks differ. */
static inline void run_ranks(int count, rank like, rank_body body, void (*change)(rank *)) {
    pthread_t threads[MOST_RANKS];
    pthread_barrier_t all;
    void *arguments[MOST_RANKS][2];
    static rank ranks[MOST_RANKS];
    pthread_barrier_init(&all, NULL, (unsigned)count);
    if (like.deadline_ms == 0) like.deadline_ms = 20000;
    CHECK_OK(xqkv_unique_id_create(&like.id, &error));
    for (int at = 0; at < count; at++) {
        ranks[at] = like;
        ranks[at].rank = ranks[at].device = at, ranks[at].count = count, ranks[at].all = &all;
        if (change != NULL) change(&ranks[at]);
        arguments[at][0] = &ranks[at];
        memcpy(&arguments[at][1], &body, sizeof body);
        CHECK(pthread_create(&threads[at], NULL, rank_thread, arguments[at]) == 0);
    }
    for (int at = 0; at < count; at++) pthread_join(threads[at], NULL);
    pthread_barrier_destroy(&all);
    CHECK(told_bytes > 0 && !is_told(&like.id));
}

/* Nothing is left on any device, and nothing was done that hardware would not stand. */
static inline void check_clean(void) {
    static const char *const kinds[] = {"comms", "streams", "events", "contexts", "allocations", "modules"};
    for (int kind = 0; kind < (int)(sizeof kinds / sizeof *kinds); kind++) {
        snprintf(check_detail, sizeof check_detail, "%d %s", (int)gpusim_live(kinds[kind]), kinds[kind]);
        CHECK(gpusim_live(kinds[kind]) == 0);
    }
    for (uint64_t at = 0; at < gpusim_violations() && at < 5; at++) printf("%s\n", gpusim_violation(at));
    CHECK(gpusim_violations() == 0);
    gpusim_clear_violations();
    gpusim_clear_hangs();
}

#endif
