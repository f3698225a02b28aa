/* Communicators: how they are made, refused and unmade, and what an abort does. What they carry is in test_ranks.c. */
#include "check.h"
#include <pthread.h>

enum { MOST_RANKS = 4096 };

static xqkv_comm *comms[MOST_RANKS];

static xqkv_comm_options options_of(int64_t deadline_ms) {
    xqkv_comm_options options;
    CHECK_OK(xqkv_comm_options_init(&options, sizeof options));
    options.deadline_ms = deadline_ms;
    return options;
}

static xqkv_comm_info info_of(const xqkv_comm *comm) {
    xqkv_comm_info info;
    CHECK_OK(xqkv_comm_info_init(&info, sizeof info));
    CHECK_OK(xqkv_comm_get_info(comm, &info, &error));
    return info;
}

static void destroy_all(int count) {
    for (int rank = 0; rank < count; rank++) CHECK_OK(xqkv_comm_destroy(comms[rank], &error));
}

static void the_default_options_are_zeros(void) {
    xqkv_comm_options options = options_of(0);
    CHECK(options.struct_size == sizeof options && options.flags == 0 && options.deadline_ms == 0);
}

static void one_rank_is_alone(void) {
    xqkv_comm *comm = NULL;
    CHECK_OK(xqkv_comm_create_alone(NULL, &comm, &error));
    xqkv_comm_info info = info_of(comm);
    CHECK(info.kind == XQKV_COMM_KIND_ALONE && info.rank == 0 && info.rank_count == 1);
    CHECK(info.transfers == 0 && info.is_poisoned == 0 && info.nccl_version == 0);
    CHECK_OK(xqkv_comm_poll(comm, &error));
    CHECK_OK(xqkv_comm_destroy(comm, &error));
}

static void threads_get_a_seat_each(int count) {
    CHECK_OK(xqkv_comm_create_threads(NULL, count, comms, &error));
    CHECK(xqkv_handle_count() == count);
    for (int rank = 0; rank < count; rank++) {
        xqkv_comm_info info = info_of(comms[rank]);
        CHECK(info.kind == XQKV_COMM_KIND_THREADS && info.rank == rank && info.rank_count == count);
        CHECK(info.transfers == 0 && info.is_poisoned == 0);
        CHECK_OK(xqkv_comm_poll(comms[rank], &error));
    }
    destroy_all(count);
}

static void options_are_refused(void) {
    xqkv_comm *comm = (xqkv_comm *)(uintptr_t)7;
    xqkv_comm_options options = options_of(-1);
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "deadline_ms is -1", xqkv_comm_create_alone(&options, &comm, &error));
    options.deadline_ms = INT64_MAX;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "deadline_ms", xqkv_comm_create_alone(&options, &comm, &error));
    options = options_of(0), options.flags = 4;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "flags is 4", xqkv_comm_create_threads(&options, 2, comms, &error));
    options = options_of(0);
    CHECK_SIZES(xqkv_comm_options, options, xqkv_comm_create_alone(&options, &comm, &error));
    CHECK(comm == (xqkv_comm *)(uintptr_t)7);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "comm is NULL", xqkv_comm_create_alone(NULL, NULL, &error));
    CHECK(xqkv_comm_options_init(NULL, sizeof options) == XQKV_STATUS_NULL_ARGUMENT);
    options.flags = XQKV_COMM_FLAG_CHECK_CALLS | XQKV_COMM_FLAG_WATCHDOG;
    CHECK_OK(xqkv_comm_create_alone(&options, &comm, &error));
    CHECK_OK(xqkv_comm_destroy(comm, &error));
}

static void numbers_of_ranks_are_refused(void) {
    static const int64_t counts[] = {INT64_MIN, -1, 0, MOST_RANKS + 1, INT64_MAX};
    comms[0] = NULL;
    for (int at = 0; at < 5; at++)
        CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank_count",
                      xqkv_comm_create_threads(NULL, counts[at], comms, &error));
    CHECK(comms[0] == NULL);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "comms is NULL", xqkv_comm_create_threads(NULL, 2, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "comms",
                  xqkv_comm_create_threads(NULL, 1, (xqkv_comm **)(void *)((char *)comms + 1), &error));
}

static void infos_are_refused(void) {
    xqkv_comm *comm = NULL;
    xqkv_comm_info info;
    CHECK_OK(xqkv_comm_create_alone(NULL, &comm, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "info is NULL", xqkv_comm_get_info(comm, NULL, &error));
    CHECK(xqkv_comm_info_init(NULL, sizeof info) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK_OK(xqkv_comm_info_init(&info, sizeof info));
    CHECK_SIZES(xqkv_comm_info, info, xqkv_comm_get_info(comm, &info, &error));
    CHECK_OK(xqkv_comm_destroy(comm, &error));
}

/* NULL, a handle that was destroyed, and one of another kind. */
static void handles_are_refused(void) {
    xqkv_comm *dead = NULL;
    xqkv_comm_info info;
    CHECK_OK(xqkv_comm_info_init(&info, sizeof info));
    CHECK_OK(xqkv_comm_create_alone(NULL, &dead, &error));
    CHECK_OK(xqkv_comm_destroy(dead, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "comm", xqkv_comm_destroy(dead, &error));
    CHECK_OK(xqkv_comm_destroy(NULL, &error));
    xqkv_comm *bad[] = {NULL, dead, (xqkv_comm *)(void *)&info, (xqkv_comm *)UINTPTR_MAX};
    for (int at = 0; at < 4; at++) {
        xqkv_status expected = at == 0 ? XQKV_STATUS_NULL_ARGUMENT : XQKV_STATUS_INVALID_HANDLE;
        CHECK_REFUSED(expected, "comm", xqkv_comm_get_info(bad[at], &info, &error));
        CHECK_REFUSED(expected, "comm", xqkv_comm_poll(bad[at], &error));
        CHECK_REFUSED(expected, "comm", xqkv_comm_abort(bad[at], &error));
    }
}

static void seats_are_destroyed_in_any_order(void) {
    static const int orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}};
    for (int order = 0; order < 3; order++) {
        CHECK_OK(xqkv_comm_create_threads(NULL, 3, comms, &error));
        for (int at = 0; at < 3; at++) CHECK_OK(xqkv_comm_destroy(comms[orders[order][at]], &error));
        CHECK(xqkv_handle_count() == 0);
    }
}

static void an_abort_poisons_here_and_is_lost_to_the_others(void) {
    CHECK_OK(xqkv_comm_create_threads(NULL, 2, comms, &error));
    CHECK_OK(xqkv_comm_abort(comms[1], &error));
    CHECK_OK(xqkv_comm_abort(comms[1], &error));
    CHECK(info_of(comms[1]).is_poisoned == 1 && info_of(comms[0]).is_poisoned == 0);
    CHECK_REFUSED(XQKV_STATUS_COMM_POISONED, "aborted", xqkv_comm_poll(comms[1], &error));
    CHECK(xqkv_comm_poll(comms[0], &error) == XQKV_STATUS_PEER_LOST);
    CHECK(strstr(error.message, "rank 1 is lost") != NULL);
    CHECK(info_of(comms[0]).is_poisoned == 1);
    CHECK_REFUSED(XQKV_STATUS_COMM_POISONED, "rank 1 is lost", xqkv_comm_poll(comms[0], &error));
    destroy_all(2);
}

/* An engine's functions, which count how often they are called. */
typedef struct {
    int polls, aborts;
    int32_t answer;
    int64_t lost;
} engine;

static int32_t gather_nothing(void *buffer, const int64_t *bytes, int64_t count, void *stream, void *user) {
    (void)buffer, (void)bytes, (void)count, (void)stream, (void)user;
    return XQKV_STATUS_OK;
}

static int32_t broadcast_nothing(void *buffer, int64_t bytes, int64_t root, void *stream, void *user) {
    (void)buffer, (void)bytes, (void)root, (void)stream, (void)user;
    return XQKV_STATUS_OK;
}

static int32_t count_polls(int32_t *is_done, int64_t *rank, void *user) {
    engine *own = (engine *)user;
    own->polls++;
    CHECK(*rank == -1);
    *is_done = 1, *rank = own->lost;
    return own->answer;
}

static void count_aborts(void *user) { ((engine *)user)->aborts++; }

static xqkv_collectives collectives_of(engine *own) {
    xqkv_collectives collectives;
    CHECK_OK(xqkv_collectives_init(&collectives, sizeof collectives));
    collectives.all_gather = gather_nothing;
    collectives.broadcast = broadcast_nothing;
    collectives.poll = count_polls;
    collectives.abort = count_aborts;
    collectives.user = own;
    return collectives;
}

static void collectives_are_refused(void) {
    engine own = {0, 0, XQKV_STATUS_OK, -1};
    xqkv_comm *comm = NULL;
    xqkv_collectives good = collectives_of(&own), bad = good;
#define MADE(rank, count) xqkv_comm_create_collectives(NULL, &bad, (rank), (count), &comm, &error)
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank is 2 of rank_count 2", MADE(2, 2));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank is -1", MADE(-1, 2));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank_count is 0", MADE(0, 0));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "rank_count", MADE(0, INT64_MAX));
    bad.all_gather = NULL;
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "all_gather", MADE(0, 2));
    bad = good, bad.broadcast = NULL;
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "broadcast", MADE(0, 2));
    bad = good, bad.reserved = 1;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "reserved is 1", MADE(0, 2));
    bad = good;
    CHECK_SIZES(xqkv_collectives, bad, MADE(0, 2));
#undef MADE
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "collectives is NULL",
                  xqkv_comm_create_collectives(NULL, NULL, 0, 2, &comm, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "comm is NULL",
                  xqkv_comm_create_collectives(NULL, &good, 0, 2, NULL, &error));
    CHECK(comm == NULL && own.polls == 0 && own.aborts == 0);
}

static void polls_and_aborts_are_the_engines(void) {
    engine own = {0, 0, XQKV_STATUS_OK, -1};
    xqkv_collectives collectives = collectives_of(&own);
    CHECK_OK(xqkv_comm_create_collectives(NULL, &collectives, 1, 3, &comms[0], &error));
    xqkv_comm_info info = info_of(comms[0]);
    CHECK(info.kind == XQKV_COMM_KIND_COLLECTIVES && info.rank == 1 && info.rank_count == 3);
    CHECK_OK(xqkv_comm_poll(comms[0], &error));
    CHECK(own.polls == 1 && own.aborts == 0);
    CHECK_OK(xqkv_comm_abort(comms[0], &error));
    CHECK_OK(xqkv_comm_abort(comms[0], &error));
    CHECK(xqkv_comm_poll(comms[0], &error) == XQKV_STATUS_COMM_POISONED);
    CHECK(own.polls == 1 && own.aborts == 1);
    destroy_all(1);
    CHECK(own.aborts == 1);
}

/* What the engine's poll answers is what xqkv_comm_poll does, and ends all transfers. */
static void a_failed_poll(int32_t answer, int64_t lost, xqkv_status expected, const char *word) {
    engine own = {0, 0, answer, lost};
    xqkv_collectives collectives = collectives_of(&own);
    CHECK_OK(xqkv_comm_create_collectives(NULL, &collectives, 0, 3, &comms[0], &error));
    CHECK(xqkv_comm_poll(comms[0], &error) == expected);
    CHECK(strstr(error.message, word) != NULL && xqkv_status_effect(expected) == XQKV_EFFECT_COMMUNICATOR_POISONED);
    CHECK(own.aborts == 1 && info_of(comms[0]).is_poisoned == 1);
    destroy_all(1);
}

static void what_the_engines_poll_answers_is_told(void) {
    a_failed_poll(XQKV_STATUS_PEER_LOST, 2, XQKV_STATUS_PEER_LOST, "rank 2 is lost");
    a_failed_poll(XQKV_STATUS_PEER_LOST, -1, XQKV_STATUS_PEER_LOST, "poll answered XQKV_STATUS_PEER_LOST");
    a_failed_poll(XQKV_STATUS_TIMED_OUT, 1, XQKV_STATUS_TIMED_OUT, "rank 1");
    a_failed_poll(XQKV_STATUS_OUT_OF_MEMORY, -1, XQKV_STATUS_PEER_LOST, "XQKV_STATUS_OUT_OF_MEMORY");
    a_failed_poll(12345, -1, XQKV_STATUS_PEER_LOST, "12345");
}

static void *poll_and_look(void *seat) {
    xqkv_error own;
    xqkv_comm_info info;
    xqkv_comm_info_init(&info, sizeof info);
    for (int round = 0; round < 200; round++) {
        xqkv_comm_poll((xqkv_comm *)seat, &own);
        xqkv_comm_get_info((xqkv_comm *)seat, &info, &own);
    }
    xqkv_comm_abort((xqkv_comm *)seat, &own);
    return NULL;
}

static void any_thread_may_poll_look_abort_and_destroy(void) {
    pthread_t threads[4];
    CHECK_OK(xqkv_comm_create_threads(NULL, 2, comms, &error));
    for (int thread = 0; thread < 4; thread++) pthread_create(&threads[thread], NULL, poll_and_look, comms[thread % 2]);
    destroy_all(2);
    for (int thread = 0; thread < 4; thread++) pthread_join(threads[thread], NULL);
}

int main(void) {
    the_default_options_are_zeros();
    one_rank_is_alone();
    for (int count = 1; count <= 8; count++) threads_get_a_seat_each(count);
    threads_get_a_seat_each(getenv("XQKV_TEST_IS_SLOW") == NULL ? MOST_RANKS : 64);
    options_are_refused();
    numbers_of_ranks_are_refused();
    infos_are_refused();
    handles_are_refused();
    seats_are_destroyed_in_any_order();
    an_abort_poisons_here_and_is_lost_to_the_others();
    collectives_are_refused();
    polls_and_aborts_are_the_engines();
    what_the_engines_poll_answers_is_told();
    any_thread_may_poll_look_abort_and_destroy();
    return check_done();
}
