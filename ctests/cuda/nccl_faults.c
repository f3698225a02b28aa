/* Each call of NCCL fails once on two ranks that join and gather: nothing aborts or hangs, nothing leaks, every call tells
   what it left, and ranks that join anew gather as before. */
#include "nccl.h"

static const char *const functions[] = {
    "ncclCommInitRankConfig", "ncclCommGetAsyncError", "ncclAllGather",  "ncclBroadcast",
    "ncclGroupStart",         "ncclGroupEnd",          "ncclCommDestroy"};

/* A collective call may lose the communicator, and with it the outputs, but nothing else. */
static int holds_its_promise(rank *own, xqkv_status status) {
    int effect = xqkv_status_effect(status);
    if (status == XQKV_STATUS_OK) return 1;
    tell(0, own->error.message, NULL);
    return own->error.message[0] != '\0' && status != XQKV_STATUS_PANIC &&
           (effect == XQKV_EFFECT_NONE || effect == XQKV_EFFECT_COMMUNICATOR_POISONED);
}

#define TRY(call)                                                 \
    do {                                                          \
        xqkv_status tried = (call);                               \
        CHECK(holds_its_promise(own, tried));                     \
        if (tried != XQKV_STATUS_OK) own->status = tried;         \
    } while (0)

/* Loads this rank's weights, which is for all ranks together; a failure of one is told to all. */
static void commit(rank *own) {
    xqkv_update *update = NULL;
    RANK_OK(xqkv_update_begin(own->projection, &update, &own->error));
    put_all(update, 0);
    xqkv_status status = xqkv_update_commit(update, NULL, &own->error);
    CHECK(holds_its_promise(own, status));
    if (status != XQKV_STATUS_OK) own->status = status, RANK_OK(xqkv_update_abandon(update, &own->error));
}

static void join_and_gather(rank *own) {
    rank_begin(own);
    rank_prepare(own);
    xqkv_forward call = rank_call(own);
    TRY(rank_join(own));
    if (own->status == XQKV_STATUS_OK) TRY(xqkv_projection_set_comm(own->projection, own->comm, &own->error));
    if (own->status == XQKV_STATUS_OK) commit(own);
    if (own->status == XQKV_STATUS_OK) TRY(xqkv_projection_forward(own->projection, &call, NULL, &own->error));
    /* The stream comes to its end, by the watchdog if the other rank did not come. */
    GPU(cuStreamSynchronize(own->stream));
    rank_release(own);
    rank_end(own);
}

static void join_and_gather_well(rank *own) {
    join_and_gather(own);
    CHECK(own->status == XQKV_STATUS_OK);
}

/* Fails the nth call of a function; whether there was one. */
static int fail_nth(rank like, const char *function, int nth, int result) {
    int failures = check_failures;
    gpusim_reset_calls();
    gpusim_fail(function, nth, result);
    run_ranks(2, like, join_and_gather, NULL);
    gpusim_fail(NULL, 0, 0);
    /* A communicator whose destruction failed is NCCL's to answer for. */
    int may_leave = strcmp(function, "ncclCommDestroy") == 0, was_called = gpusim_calls(function) >= (uint64_t)nth;
    if (may_leave) gpusim_clear_violations();
    else check_clean();
    if (check_failures != failures) printf("    when call %d of %s answered %d\n", nth, function, result);
    return was_called;
}

int main(void) {
    static const int results[] = {1, 999};
    rank like;
    memset(&like, 0, sizeof like);
    like.flags = XQKV_COMM_FLAG_WATCHDOG;
    run_ranks(2, like, join_and_gather_well, NULL), check_clean();
    like.deadline_ms = 500;
    for (int function = 0; function < (int)(sizeof functions / sizeof *functions); function++) {
        for (int nth = 1; nth <= 12 && check_failures < 10; nth++) {
            int was_called = 0;
            for (int at = 0; at < 2; at++) was_called = fail_nth(like, functions[function], nth, results[at]);
            if (!was_called) break;
        }
    }
    like.deadline_ms = 0;
    run_ranks(2, like, join_and_gather_well, NULL);
    return check_done();
}
