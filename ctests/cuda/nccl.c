/* Ranks over NCCL: how they join, what they carry, and what becomes of them when one is lost. */
#include "nccl.h"

static void gather(rank *own) {
    rank_prepare(own);
    RANK_OK(xqkv_projection_set_comm(own->projection, own->comm, &own->error));
    load(own->projection, 0);
    rank_forward(own);
    rank_forward(own);
    RANK_OK(xqkv_comm_poll(own->comm, &own->error));
    rank_release(own);
}

static void check_info(rank *own, int is_poisoned) {
    xqkv_comm_info info;
    CHECK_OK(xqkv_comm_info_init(&info, sizeof info));
    RANK_OK(xqkv_comm_get_info(own->comm, &info, &own->error));
    CHECK(info.kind == XQKV_COMM_KIND_NCCL && info.rank == own->rank && info.rank_count == own->count);
    CHECK(info.nccl_version == 23003 && info.is_poisoned == is_poisoned);
}

static void join_and_gather(rank *own) {
    rank_begin(own);
    if (RANK_OK(rank_join(own))) {
        check_info(own, 0);
        gather(own);
    }
    rank_end(own);
}

/* The engine's communicator is adopted, and is the engine's afterwards. `status` says whether its calls block. */
static void adopt_and_gather(rank *own) {
    nccl_config config = {sizeof config, 0xcafebeef, 21400, own->status, 0};
    xqkv_comm_options options = rank_options(own);
    void *engine = NULL;
    int state = 7, count = 0;
    rank_begin(own);
    int made = ncclCommInitRankConfig(&engine, own->count, own->id, own->rank, &config);
    CHECK(made == (own->status ? 0 : 7));
    RANK_OK(xqkv_comm_adopt_nccl(own->context, &options, engine, &own->comm, &own->error));
    check_info(own, 0);
    gather(own);
    RANK_OK(xqkv_comm_abort(own->comm, &own->error));
    check_info(own, 1);
    RANK_OK(xqkv_comm_destroy(own->comm, &own->error));
    own->comm = NULL;
    CHECK(ncclCommGetAsyncError(engine, &state) == 0 && state == 0);
    CHECK(ncclCommCount(engine, &count) == 0 && count == own->count);
    CHECK(ncclCommDestroy(engine) == 0);
    rank_end(own);
}

/* A communicator of another device than the context's. */
static void adopt_of_elsewhere(rank *own) {
    nccl_config config = {sizeof config, 0xcafebeef, 21400, 1, 0};
    void *engine = NULL, *other = NULL;
    rank_begin(own);
    GPU(cuDevicePrimaryCtxRetain(&other, 1));
    GPU(cuCtxSetCurrent(other));
    CHECK(ncclCommInitRankConfig(&engine, 1, own->id, 0, &config) == 0);
    RANK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "is on CUDA device 1, but the context on device 0",
                 xqkv_comm_adopt_nccl(own->context, NULL, engine, &own->comm, &own->error));
    RANK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "nccl_comm",
                 xqkv_comm_adopt_nccl(own->context, NULL, NULL, &own->comm, &own->error));
    CHECK(own->comm == NULL && ncclCommDestroy(engine) == 0);
    GPU(cuDevicePrimaryCtxRelease_v2(1));
    rank_end(own);
}

/* A projection of device 0 and a communicator of device 1. */
static void join_elsewhere(rank *own) {
    xqkv_context_options options = gpu_options();
    xqkv_context *there = NULL;
    rank_begin(own);
    options.device = 1;
    RANK_OK(xqkv_context_create(&options, &there, &own->error));
    RANK_OK(xqkv_comm_create_nccl(there, NULL, &own->id, 0, 1, &own->comm, &own->error));
    RANK_OK(xqkv_context_destroy(there, &own->error));
    rank_prepare(own);
    RANK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "is on CUDA device 1, but the projection on device 0",
                 xqkv_projection_set_comm(own->projection, own->comm, &own->error));
    rank_release(own);
    rank_end(own);
}

static void bad_arguments(rank *own) {
    xqkv_unique_id zeros;
    memset(&zeros, 0, sizeof zeros);
    rank_begin(own);
#define MADE(context, id, rank, count) xqkv_comm_create_nccl((context), NULL, (id), (rank), (count), &own->comm, &own->error)
    RANK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "unique_id", MADE(own->context, NULL, 0, 1));
    RANK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "all zeros", MADE(own->context, &zeros, 0, 1));
    RANK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank is 2 of rank_count 2", MADE(own->context, &own->id, 2, 2));
    RANK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank_count is 0", MADE(own->context, &own->id, 0, 0));
    RANK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "context", MADE(NULL, &own->id, 0, 1));
    RANK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "comm is NULL",
                 xqkv_comm_create_nccl(own->context, NULL, &own->id, 0, 1, NULL, &own->error));
    xqkv_context_options options = gpu_options();
    xqkv_context *host = NULL;
    options.backend = XQKV_BACKEND_HOST;
    RANK_OK(xqkv_context_create(&options, &host, &own->error));
    RANK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "xqkv_comm_create_threads", MADE(host, &own->id, 0, 1));
    RANK_OK(xqkv_context_destroy(host, &own->error));
    CHECK(own->comm == NULL);
    rank_end(own);
}

static void one_of_two(rank *own) { own->count = 2; }

static void join_in_vain(rank *own) {
    rank_begin(own);
    RANK_REFUSED(XQKV_STATUS_TIMED_OUT, "not all ranks are there", rank_join(own));
    CHECK(own->comm == NULL);
    rank_end(own);
}

static void all_are_rank_0(rank *own) { own->rank = 0; }

static void all_are_on_device_0(rank *own) { own->device = 0; }

/* One at least is refused by NCCL, the others may wait in vain. */
static void join_wrongly(rank *own) {
    rank_begin(own);
    xqkv_status status = rank_join(own);
    CHECK(own->comm == NULL && (status == XQKV_STATUS_DEVICE_REFUSED || status == XQKV_STATUS_TIMED_OUT));
    if (status == XQKV_STATUS_DEVICE_REFUSED) CHECK(strstr(own->error.message, "answered 5 (invalid usage") != NULL);
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static int refused, asked;
    pthread_mutex_lock(&mutex);
    refused += status == XQKV_STATUS_DEVICE_REFUSED;
    if (++asked % 2 == 0) CHECK(refused > 0), refused = 0;
    pthread_mutex_unlock(&mutex);
    rank_end(own);
}

/* The same transfers from a graph, launched twice; what is captured is not marked, and stays well past the deadline. */
static void gather_by_graph(rank *own) {
    enum { CAPTURE_THREAD_LOCAL = 1 };
    outputs out;
    void *graph = NULL, *executable = NULL;
    xqkv_plan *plan = NULL;
    rank_begin(own);
    if (!RANK_OK(rank_join(own))) return;
    rank_prepare(own);
    RANK_OK(xqkv_projection_set_comm(own->projection, own->comm, &own->error));
    load(own->projection, 0);
    xqkv_forward call = rank_call(own);
    RANK_OK(xqkv_plan_create(own->projection, &call, NULL, &plan, &own->error));
    call.plan = plan;
    GPU(cuStreamBeginCapture_v2(own->stream, CAPTURE_THREAD_LOCAL));
    RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    GPU(cuStreamEndCapture(own->stream, &graph));
    GPU(cuGraphInstantiateWithFlags(&executable, graph, 0));
    wait_ms(own->deadline_ms + 20);
    RANK_OK(xqkv_comm_poll(own->comm, &own->error));
    for (int launch = 0; launch < 2; launch++) {
        poison(&out);
        write_device(own->results, &out, sizeof out);
        GPU(cuGraphLaunch(executable, own->stream));
        GPU(cuStreamSynchronize(own->stream));
        GPU(cuMemcpyDtoH_v2(&out, own->results, sizeof out));
        for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 0, ROWS, 0));
    }
    GPU(cuGraphExecDestroy(executable));
    GPU(cuGraphDestroy(graph));
    RANK_OK(xqkv_plan_destroy(plan, &own->error));
    rank_release(own);
    rank_end(own);
}

/* Rank 1 does not make the call that the others make. */
static void lose_a_rank(rank *own) {
    rank_begin(own);
    if (!RANK_OK(rank_join(own))) return;
    rank_prepare(own);
    RANK_OK(xqkv_projection_set_comm(own->projection, own->comm, &own->error));
    load(own->projection, 0);
    pthread_barrier_wait(own->all);
    if (own->rank != 1) {
        xqkv_forward call = rank_call(own);
        RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
        RANK_OK(xqkv_comm_poll(own->comm, &own->error));
        if (own->flags & XQKV_COMM_FLAG_WATCHDOG) GPU(cuStreamSynchronize(own->stream));
        else wait_ms(own->deadline_ms + 20);
        RANK_REFUSED(XQKV_STATUS_TIMED_OUT, "an all-gather of", xqkv_comm_poll(own->comm, &own->error));
        RANK_REFUSED(XQKV_STATUS_COMM_POISONED, "an all-gather of", xqkv_comm_poll(own->comm, &own->error));
        check_info(own, 1);
        GPU(cuStreamSynchronize(own->stream));
        RANK_REFUSED(XQKV_STATUS_COMM_POISONED, "TIMED_OUT",
                     xqkv_projection_forward(own->projection, &call, NULL, &own->error));
        /* What needs no transfer goes on. */
        call.flags = 0;
        RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    }
    pthread_barrier_wait(own->all);
    rank_release(own);
    rank_end(own);
}

static void abort_all(rank *own) {
    rank_begin(own);
    if (!RANK_OK(rank_join(own))) return;
    RANK_OK(xqkv_comm_abort(own->comm, &own->error));
    RANK_REFUSED(XQKV_STATUS_COMM_POISONED, "aborted", xqkv_comm_poll(own->comm, &own->error));
    RANK_OK(xqkv_comm_abort(own->comm, &own->error));
    rank_end(own);
}

/* `status` is what NCCL says by itself. */
static void fail_by_itself(rank *own) {
    char word[32];
    snprintf(word, sizeof word, "answered %d (", (int)own->status);
    rank_begin(own);
    if (!RANK_OK(rank_join(own))) return;
    pthread_barrier_wait(own->all);
    if (own->rank == 0) gpusim_async_error(-1, own->status);
    pthread_barrier_wait(own->all);
    RANK_REFUSED(XQKV_STATUS_PEER_LOST, word, xqkv_comm_poll(own->comm, &own->error));
    check_info(own, 1);
    rank_end(own);
}

int main(void) {
    rank usual, quick;
    memset(&usual, 0, sizeof usual);
    quick = usual, quick.deadline_ms = 300;
    for (int count = 1; count <= 2; count++) run_ranks(count, usual, join_and_gather, NULL), check_clean();
    usual.flags = XQKV_COMM_FLAG_CHECK_CALLS | XQKV_COMM_FLAG_WATCHDOG;
    run_ranks(2, usual, join_and_gather, NULL), check_clean();
    usual.flags = 0;
    for (usual.status = 0; usual.status < 2; usual.status++)
        run_ranks(2, usual, adopt_and_gather, NULL), check_clean();
    usual.status = 0;
    run_ranks(1, usual, adopt_of_elsewhere, NULL), check_clean();
    run_ranks(1, usual, join_elsewhere, NULL), check_clean();
    run_ranks(1, usual, bad_arguments, NULL), check_clean();
    run_ranks(1, quick, join_in_vain, one_of_two), check_clean();
    run_ranks(2, usual, abort_all, NULL), check_clean();
    static const int results[] = {1, 6, 999};
    for (int at = 0; at < 3; at++) {
        usual.status = results[at];
        run_ranks(2, usual, fail_by_itself, NULL), check_clean();
    }
    quick.deadline_ms = 1000;
    run_ranks(2, quick, gather_by_graph, NULL), check_clean();
    run_ranks(2, quick, lose_a_rank, NULL), check_clean();
    quick.flags = XQKV_COMM_FLAG_WATCHDOG;
    run_ranks(2, quick, lose_a_rank, NULL), check_clean();
    run_ranks(2, quick, join_wrongly, all_are_rank_0), gpusim_clear_violations(), check_clean();
    run_ranks(2, quick, join_wrongly, all_are_on_device_0), gpusim_clear_violations(), check_clean();
    return check_done();
}
