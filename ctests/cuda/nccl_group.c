/* One thread that drives several devices: calls halved around the engine's own group of NCCL calls, and calls that are
   captured in graphs. */
#include "nccl.h"

int ncclGroupStart(void);
int ncclGroupEnd(void);

static rank *members[MOST_RANKS];
static const int64_t parts[2] = {2, 1};

static void prepare(rank *own) {
    rank_begin(own);
    RANK_OK(rank_join(own));
    rank_prepare(own);
    RANK_OK(xqkv_projection_set_comm(own->projection, own->comm, &own->error));
    load(own->projection, 0);
    members[own->rank] = own;
}

static void release(rank *own) {
    rank_release(own);
    rank_end(own);
}

static void poison_results(rank *own) {
    outputs poisoned;
    poison(&poisoned);
    GPU(cuCtxSetCurrent(own->cuda));
    write_device(own->results, &poisoned, sizeof poisoned);
}

static void read_results(rank *own, outputs *out) {
    GPU(cuCtxSetCurrent(own->cuda));
    GPU(cuStreamSynchronize(own->stream));
    GPU(cuMemcpyDtoH_v2(out, own->results, sizeof *out));
}

/* Encoder rows that each rank has a part of; results stay sharded by head. */
static xqkv_forward sharded(rank *own) {
    xqkv_forward call = rank_call(own);
    size_t before = own->rank == 0 ? 0 : (size_t)parts[0];
    call.flags = 0;
    call.encoder.data = (const float *)call.encoder.data + before * (size_t)test_inputs[KEY];
    call.encoder.rows = parts[own->rank];
    call.encoder_rank_rows = parts;
    call.chunk_rows = 1;
    return call;
}

static void halves(int count, xqkv_forward (*make)(rank *), outputs *out) {
    for (int at = 0; at < count; at++) poison_results(members[at]);
    CHECK(ncclGroupStart() == 0);
    for (int at = 0; at < count; at++) {
        rank *own = members[at];
        xqkv_forward call = make(own);
        call.flags |= XQKV_FORWARD_FLAG_START;
        RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    }
    int ended = ncclGroupEnd();
    CHECK(ended == 0 || ended == 7);
    for (int at = 0; at < count; at++) {
        rank *own = members[at];
        xqkv_forward call = make(own);
        call.flags |= XQKV_FORWARD_FLAG_FINISH;
        RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    }
    for (int at = 0; at < count; at++) read_results(members[at], &out[at]);
}

/* What each rank has of its own heads when it has all rows. */
static void whole(rank *own, outputs *out) {
    xqkv_forward call = rank_call(own);
    call.flags = 0;
    poison_results(own);
    RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    read_results(own, out);
}

static void refuse_halves(rank *own) {
    xqkv_forward call = sharded(own);
    call.flags = XQKV_FORWARD_FLAG_START | XQKV_FORWARD_FLAG_FINISH;
    RANK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "one call with each",
                 xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    call.flags = XQKV_FORWARD_FLAG_START | XQKV_FORWARD_FLAG_GATHER_KEY_VALUE;
    RANK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "two rounds",
                 xqkv_projection_forward(own->projection, &call, NULL, &own->error));
}

static void by_one_thread(int count) {
    static outputs out[MOST_RANKS], expected[MOST_RANKS];
    halves(count, rank_call, out);
    for (int at = 0; at < count; at++)
        for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out[at], part, 0, ROWS, 0));
    for (int at = 0; at < count; at++) whole(members[at], &expected[at]);
    halves(count, sharded, out);
    for (int at = 0; at < count; at++) CHECK(memcmp(&out[at], &expected[at], sizeof out[at]) == 0);
    refuse_halves(members[0]);
    GPU(cuCtxSetCurrent(members[0]->cuda));
}

/* All ranks are there, and the first one's thread makes the calls of all. */
static void in_a_group(rank *own) {
    prepare(own);
    pthread_barrier_wait(own->all);
    if (own->rank == 0) by_one_thread(own->count);
    pthread_barrier_wait(own->all);
    release(own);
}

/* A call with transfers is captured on every rank, and its graph is launched again and again. */
static void captured(rank *own) {
    outputs out;
    void *graph = NULL, *ready = NULL;
    prepare(own);
    rank_forward(own);
    xqkv_forward call = rank_call(own);
    xqkv_plan *plan = NULL;
    RANK_OK(xqkv_plan_create(own->projection, &call, NULL, &plan, &own->error));
    call.plan = plan;
    pthread_barrier_wait(own->all);
    GPU(cuStreamBeginCapture_v2(own->stream, 1));
    RANK_OK(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    GPU(cuStreamEndCapture(own->stream, &graph));
    GPU(cuGraphInstantiateWithFlags(&ready, graph, 0));
    for (int turn = 0; turn < 3; turn++) {
        poison_results(own);
        GPU(cuGraphLaunch(ready, own->stream));
        read_results(own, &out);
        for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 0, ROWS, 0));
    }
    GPU(cuGraphExecDestroy(ready));
    GPU(cuGraphDestroy(graph));
    RANK_OK(xqkv_plan_destroy(plan, &own->error));
    release(own);
}

int main(void) {
    rank usual;
    memset(&usual, 0, sizeof usual);
    run_ranks(2, usual, in_a_group, NULL), check_clean();
    run_ranks(2, usual, captured, NULL), check_clean();
    return check_done();
}
