/* What the adapter does with MPI: each function of its collectives by itself, and what is told when a rank does not come.
   Compiled as C and as C++, and once with limits so small that every transfer goes in parts. Prints nothing if all is
   well; run under mpirun with 1 to 8 processes. */
#include <xqkv_mpi.h>

enum { MOST_BYTES = 4096, DEADLINE_MS = 400 };

static int rank, rank_count, failures;
static xqkv_mpi_comm *seat;
static xqkv_error error;
static unsigned char buffer[MOST_BYTES];

static void check(int holds, const char *what, int line) {
    if (holds) return;
    printf("rank %d of %d, line %d: %s\n    last message: %s\n", rank, rank_count, line, what, error.message);
    failures++;
}
#define CHECK(condition) check((condition), #condition, __LINE__)

static void open_seat(int64_t deadline_ms) {
    xqkv_comm_options options;
    CHECK(xqkv_comm_options_init(&options, sizeof options) == XQKV_STATUS_OK);
    options.deadline_ms = deadline_ms;
    CHECK(xqkv_mpi_comm_create(MPI_COMM_WORLD, &options, &seat, &error) == XQKV_STATUS_OK);
    if (seat == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
}

static void close_seat(void) {
    CHECK(xqkv_mpi_comm_destroy(seat, &error) == XQKV_STATUS_OK);
    seat = NULL;
}

/* Polls until all is done, at most some seconds. */
static void wait_for_all(void) {
    double end = MPI_Wtime() + 20;
    int32_t is_done = 0;
    int64_t awaited = -1;
    while (!is_done && MPI_Wtime() < end)
        if (xqkv_mpi_poll(&is_done, &awaited, seat) != XQKV_STATUS_OK) break;
    CHECK(is_done == 1);
}

/* A rank's bytes, unlike any other's. */
static unsigned char byte_of(int of_rank, int64_t at) { return (unsigned char)(of_rank * 37 + at * 5 + 1); }

static void all_ranks_bytes_reach_all(int64_t (*bytes_of)(int)) {
    int64_t bytes[64], begin = 0, total = 0;
    for (int other = 0; other < rank_count; other++) bytes[other] = bytes_of(other), total += bytes[other];
    for (int other = 0; other < rank; other++) begin += bytes[other];
    memset(buffer, 0xee, sizeof buffer);
    for (int64_t at = 0; at < bytes[rank]; at++) buffer[begin + at] = byte_of(rank, at);
    CHECK(xqkv_mpi_all_gather(buffer, bytes, rank_count, NULL, seat) == XQKV_STATUS_OK);
    wait_for_all();
    unsigned char *next = buffer;
    for (int other = 0; other < rank_count; other++)
        for (int64_t at = 0; at < bytes[other]; at++) CHECK(*next++ == byte_of(other, at));
    CHECK(next == buffer + total && *next == 0xee);
}

static int64_t as_many(int of_rank) { return (void)of_rank, 16; }
static int64_t uneven(int of_rank) { return of_rank * 7 % 5 * 11; }
static int64_t nothing(int of_rank) { return (void)of_rank, 0; }
static int64_t only_the_last(int of_rank) { return of_rank == rank_count - 1 ? 100 : 0; }

static void the_roots_bytes_reach_all(int root, int64_t bytes) {
    memset(buffer, 0xee, sizeof buffer);
    for (int64_t at = 0; at < bytes; at++) buffer[at] = byte_of(rank, at);
    CHECK(xqkv_mpi_broadcast(buffer, bytes, root, NULL, seat) == XQKV_STATUS_OK);
    wait_for_all();
    for (int64_t at = 0; at < bytes; at++) CHECK(buffer[at] == byte_of(root, at));
    CHECK(buffer[bytes] == 0xee);
}

/* Each rank sends two messages to each rank above it: of 0 to 35 bytes, and of 7. */
static void messages_come_in_order(void) {
    static unsigned char memory[64][2][40];
    xqkv_message messages[128];
    int64_t count = 0;
    for (int peer = 0; peer < rank_count; peer++) {
        int sender = peer > rank ? rank : peer;
        for (int which = 0; which < 2 && peer != rank; which++) {
            xqkv_message message = {memory[peer][which], which == 0 ? sender * 5 : 7, peer, peer > rank, 0};
            for (int at = 0; at < 40; at++) memory[peer][which][at] = peer > rank ? byte_of(rank, at + which) : 0xee;
            messages[count++] = message;
        }
    }
    CHECK(xqkv_mpi_exchange(messages, count, NULL, seat) == XQKV_STATUS_OK);
    wait_for_all();
    for (int peer = 0; peer < rank; peer++)
        for (int at = 0; at < 40; at++) {
            CHECK(memory[peer][0][at] == (at < peer * 5 ? byte_of(peer, at) : 0xee));
            CHECK(memory[peer][1][at] == (at < 7 ? byte_of(peer, at + 1) : 0xee));
        }
}

/* Some transfers at once, which end together. */
static void transfers_overlap(void) {
    int64_t bytes[64];
    unsigned char own[2][64];
    for (int other = 0; other < rank_count; other++) bytes[other] = 1;
    for (int which = 0; which < 2; which++) {
        own[which][rank] = byte_of(rank, which);
        CHECK(xqkv_mpi_all_gather(own[which], bytes, rank_count, NULL, seat) == XQKV_STATUS_OK);
    }
    wait_for_all();
    for (int other = 0; other < rank_count; other++)
        CHECK(own[0][other] == byte_of(other, 0) && own[1][other] == byte_of(other, 1));
}

static void streams_are_refused(void) {
    int64_t bytes[64] = {0};
    int stream = 0;
    CHECK(xqkv_mpi_all_gather(buffer, bytes, rank_count, &stream, seat) == XQKV_STATUS_NOT_SUPPORTED);
    CHECK(xqkv_mpi_broadcast(buffer, 1, 0, &stream, seat) == XQKV_STATUS_NOT_SUPPORTED);
    CHECK(xqkv_mpi_exchange(NULL, 0, &stream, seat) == XQKV_STATUS_NOT_SUPPORTED);
}

static void the_seat_is_mpis(void) {
    xqkv_comm_info info;
    CHECK(xqkv_comm_info_init(&info, sizeof info) == XQKV_STATUS_OK);
    CHECK(xqkv_comm_get_info(seat->comm, &info, &error) == XQKV_STATUS_OK);
    CHECK(info.kind == XQKV_COMM_KIND_COLLECTIVES && info.rank == rank && info.rank_count == rank_count);
    CHECK(xqkv_comm_poll(seat->comm, &error) == XQKV_STATUS_OK);
}

/* The engine's own messages, which any receive of the same communicator would take. */
static void the_engines_messages_are_left_alone(void) {
    unsigned char sent = (unsigned char)(rank + 100), received = 0;
    MPI_Request request;
    int next = (rank + 1) % rank_count, last = (rank + rank_count - 1) % rank_count;
    MPI_Isend(&sent, 1, MPI_BYTE, next, 0, MPI_COMM_WORLD, &request);
    messages_come_in_order();
    MPI_Recv(&received, 1, MPI_BYTE, last, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    CHECK(received == last + 100);
}

static void arguments_are_refused(void) {
    xqkv_comm_options options;
    xqkv_mpi_comm *made = NULL;
    CHECK(xqkv_mpi_comm_create(MPI_COMM_WORLD, NULL, NULL, &error) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK(strstr(error.message, "made is NULL") != NULL);
    CHECK(xqkv_comm_options_init(&options, sizeof options) == XQKV_STATUS_OK);
    options.flags = 1u << 31;
    CHECK(xqkv_mpi_comm_create(MPI_COMM_WORLD, &options, &made, &error) == XQKV_STATUS_INVALID_ARGUMENT);
    CHECK(made == NULL && xqkv_mpi_comm_destroy(NULL, &error) == XQKV_STATUS_OK);
}

/* After an abort nothing that a late rank sends comes to where the call wanted it. */
static void an_abort_leaves_small_memory_alone(void) {
    unsigned char received[8], sent[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    int64_t awaited = -1;
    int32_t is_done = 1;
    xqkv_message message = {received, 8, 1, 0, 0}, reply = {sent, 8, 0, 1, 0};
    memset(received, 0xee, sizeof received);
    if (rank == 0) {
        CHECK(xqkv_mpi_exchange(&message, 1, NULL, seat) == XQKV_STATUS_OK);
        CHECK(xqkv_mpi_poll(&is_done, &awaited, seat) == XQKV_STATUS_OK && !is_done && awaited == 1);
        CHECK(xqkv_comm_abort(seat->comm, &error) == XQKV_STATUS_OK);
        CHECK(xqkv_comm_poll(seat->comm, &error) == XQKV_STATUS_COMM_POISONED);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 1) CHECK(xqkv_mpi_exchange(&reply, 1, NULL, seat) == XQKV_STATUS_OK);
    MPI_Barrier(MPI_COMM_WORLD);
    for (int at = 0; rank == 0 && at < 8; at++) CHECK(received[at] == 0xee);
}

/* A seat is not made when a rank does not come; those that wait are told in time, and the late one may still come. */
static void a_rank_that_does_not_come_is_not_waited_for(void) {
    xqkv_comm_options options;
    double begin = MPI_Wtime(), end = begin + 2.0 * DEADLINE_MS / 1000;
    CHECK(xqkv_comm_options_init(&options, sizeof options) == XQKV_STATUS_OK);
    options.deadline_ms = DEADLINE_MS;
    while (rank == 0 && MPI_Wtime() < end) sched_yield();
    xqkv_status status = xqkv_mpi_comm_create(MPI_COMM_WORLD, rank == 0 ? NULL : &options, &seat, &error);
    double waited = (MPI_Wtime() - begin) * 1000;
    CHECK(status == (rank == 0 ? XQKV_STATUS_OK : XQKV_STATUS_TIMED_OUT));
    CHECK(rank == 0 || (seat == NULL && waited >= DEADLINE_MS && waited < DEADLINE_MS * 1.5));
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK(xqkv_mpi_comm_destroy(seat, &error) == XQKV_STATUS_OK);
}

static void transfers_do_what_they_should(void) {
    int64_t (*const shapes[])(int) = {as_many, uneven, nothing, only_the_last};
    for (int shape = 0; shape < 4; shape++) all_ranks_bytes_reach_all(shapes[shape]);
    for (int root = 0; root < rank_count; root++) the_roots_bytes_reach_all(root, root * 50);
    messages_come_in_order();
    transfers_overlap();
    the_engines_messages_are_left_alone();
}

int main(int count, char **arguments) {
    int given = MPI_THREAD_SINGLE;
    MPI_Init_thread(&count, &arguments, MPI_THREAD_MULTIPLE, &given);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &rank_count);
    open_seat(0);
    the_seat_is_mpis();
    transfers_do_what_they_should();
    streams_are_refused();
    arguments_are_refused();
    if (rank_count > 1) an_abort_leaves_small_memory_alone();
    close_seat();
    if (rank_count > 1) a_rank_that_does_not_come_is_not_waited_for();
    CHECK(xqkv_handle_count() == 0);
    if (failures > 0) MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Finalize();
    return 0;
}
