/* Ranks as threads with a communicator: what they gather and share, and what each is told when they are not of one mind.
   Threads have no device of their own here, so on CUDA there is nothing to do; NCCL's ranks have tests of their own. */
#include "fixture.h"
#include <pthread.h>
#include <time.h>

enum { MOST_RANKS = 8, DECODER_ROWS = 3, ENCODER_ROWS = 23, WORKSPACE_BYTES = 1 << 16 };

/* One rank; its thread touches nothing else. */
typedef struct {
    int rank;
    xqkv_comm *comm;
    xqkv_projection_options options;
    xqkv_spec spec;
    xqkv_projection *projection;
    xqkv_update *update;
    xqkv_shard shard;
    xqkv_forward call;
    xqkv_stats stats;
    outputs *out;
    xqkv_status status;
    xqkv_error error;
    double seconds;
} rank_state;

static rank_state ranks[MOST_RANKS];
static outputs outs[MOST_RANKS];
static unsigned char workspaces[MOST_RANKS][WORKSPACE_BYTES] __attribute__((aligned(256)));
static int64_t rank_rows[MOST_RANKS];
static xqkv_context *context;
static int rank_count;

static void (*shared_step)(rank_state *);

static void *run_step(void *own) {
    shared_step((rank_state *)own);
    return NULL;
}

/* Has each rank do the same at once, on a thread of its own. */
static void together(void (*step)(rank_state *)) {
    pthread_t threads[MOST_RANKS];
    shared_step = step;
    for (int rank = 0; rank < rank_count; rank++) pthread_create(&threads[rank], NULL, run_step, &ranks[rank]);
    for (int rank = 0; rank < rank_count; rank++) pthread_join(threads[rank], NULL);
}

static void create(rank_state *own) {
    own->status = xqkv_projection_create(context, &own->spec, &own->options, &own->projection, &own->error);
}

static void commit(rank_state *own) { own->status = xqkv_update_commit(own->update, NULL, &own->error); }

static void forward(rank_state *own) {
    own->status = xqkv_projection_forward(own->projection, &own->call, &own->stats, &own->error);
}

static void set_comm(rank_state *own) {
    own->status = xqkv_projection_set_comm(own->projection, own->comm, &own->error);
}

/* All ranks answered this, with a message that has the word; or all but one. */
static void all_answered(xqkv_status status, const char *word, int but) {
    for (int rank = 0; rank < rank_count; rank++) {
        if (rank == but) continue;
        int holds = ranks[rank].status == status && (word == NULL || strstr(ranks[rank].error.message, word) != NULL);
        snprintf(check_detail, sizeof check_detail, "rank %d of %d: %s, \"%.100s\"", rank, rank_count,
                 xqkv_status_name(ranks[rank].status), ranks[rank].error.message);
        CHECK(holds);
    }
}

static void make_comms(int64_t deadline_ms) {
    xqkv_comm_options options;
    xqkv_comm *comms[MOST_RANKS];
    CHECK_OK(xqkv_comm_options_init(&options, sizeof options));
    options.deadline_ms = deadline_ms;
    CHECK_OK(xqkv_comm_create_threads(&options, rank_count, comms, &error));
    for (int rank = 0; rank < rank_count; rank++) ranks[rank].comm = comms[rank];
}

static void destroy_comms(void) {
    for (int rank = 0; rank < rank_count; rank++) CHECK_OK(xqkv_comm_destroy(ranks[rank].comm, &error));
}

static void prepare_rank(int rank, uint64_t flags) {
    rank_state *own = &ranks[rank];
    own->rank = rank;
    own->spec = test_spec();
    own->out = &outs[rank];
    CHECK_OK(xqkv_projection_options_init(&own->options, sizeof own->options));
    CHECK_OK(xqkv_projection_options_balance(&own->options, &own->spec, rank, rank_count, &error));
    own->options.comm = own->comm;
    own->options.flags = flags;
    CHECK_OK(xqkv_stats_init(&own->stats, sizeof own->stats));
    CHECK_OK(xqkv_shard_init(&own->shard, sizeof own->shard));
}

static void load_all(int generation) {
    for (int rank = 0; rank < rank_count; rank++) {
        CHECK_OK(xqkv_update_begin(ranks[rank].projection, &ranks[rank].update, &error));
        put_all(ranks[rank].update, generation);
    }
    together(commit);
    all_answered(XQKV_STATUS_OK, NULL, -1);
}

/* So many ranks with balanced heads, loaded. */
static void open_ranks(int count, uint64_t flags, int64_t deadline_ms) {
    rank_count = count;
    context = test_context(1);
    make_comms(deadline_ms);
    for (int rank = 0; rank < count; rank++) prepare_rank(rank, flags);
    together(create);
    all_answered(XQKV_STATUS_OK, NULL, -1);
    for (int rank = 0; rank < count; rank++)
        CHECK_OK(xqkv_projection_get_shard(ranks[rank].projection, &ranks[rank].shard, &error));
    load_all(0);
}

static void close_ranks(void) {
    for (int rank = 0; rank < rank_count; rank++) CHECK_OK(xqkv_projection_destroy(ranks[rank].projection, &error));
    destroy_comms();
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK(xqkv_handle_count() == 0);
}

/* Every rank's next call, with all encoder rows on every rank. */
static void prepare_calls(uint32_t flags, int decoder_rows, int encoder_rows) {
    for (int rank = 0; rank < rank_count; rank++) {
        rank_state *own = &ranks[rank];
        own->call = test_call(own->out, decoder_rows, encoder_rows);
        own->call.flags = flags;
        own->call.workspace = workspaces[rank];
        own->call.workspace_bytes = WORKSPACE_BYTES;
        poison(own->out);
    }
}

/* Gives each rank its part of the rows: uneven, and none to rank 1 of three or more. */
static void cut_rows(int64_t chunk_rows) {
    int64_t left = ENCODER_ROWS, begin = 0;
    for (int rank = 0; rank < rank_count; rank++) {
        rank_rows[rank] = rank == rank_count - 1 ? left : rank == 1 ? 0 : left / 3;
        left -= rank_rows[rank];
    }
    for (int rank = 0; rank < rank_count; begin += rank_rows[rank++]) {
        xqkv_forward *call = &ranks[rank].call;
        call->encoder_rank_rows = rank_rows;
        call->chunk_rows = chunk_rows;
        call->encoder.rows = rank_rows[rank];
        call->encoder.data = rank_rows[rank] == 0 ? NULL : test_rows(KEY) + begin * ENCODER_WIDTH;
    }
}

/* Whether a rank's output has these heads of the uncut layer, and poison behind them. */
static int has_heads(const rank_state *own, int part, int64_t head_begin, int64_t head_count, int rows, int generation) {
    int columns = (int)head_count * test_widths[part], first = (int)head_begin * test_widths[part];
    for (int at = 0; at < rows * columns; at++) {
        float expected = test_result(part, 0, at / columns, first + at % columns, generation);
        if (own->out->parts[part][at] == expected) continue;
        snprintf(check_detail, sizeof check_detail, "rank %d of %d, part %d, row %d, column %d is %g, expected %g",
                 own->rank, rank_count, part, at / columns, at % columns, (double)own->out->parts[part][at],
                 (double)expected);
        return 0;
    }
    return isnan(own->out->parts[part][rows * columns]);
}

static void results_are_right(uint32_t flags, int decoder_rows, int encoder_rows, int generation) {
    for (int rank = 0; rank < rank_count; rank++) {
        const rank_state *own = &ranks[rank];
        const xqkv_shard *shard = &own->shard;
        int all = (flags & XQKV_FORWARD_FLAG_GATHER_QUERY) != 0;
        CHECK(has_heads(own, QUERY, all ? 0 : shard->query_head_begin, all ? QUERY_HEADS : shard->query_head_count,
                        decoder_rows, generation));
        all = (flags & XQKV_FORWARD_FLAG_GATHER_KEY_VALUE) != 0;
        for (int part = KEY; part <= VALUE; part++)
            CHECK(has_heads(own, part, all ? 0 : shard->key_value_head_begin,
                            all ? KEY_VALUE_HEADS : shard->key_value_head_count, encoder_rows, generation));
    }
}

/* Multiply-adds of the uncut layer. */
static int64_t necessary(int decoder_rows, int encoder_rows) {
    int64_t query = (int64_t)decoder_rows * DECODER_WIDTH * test_columns(QUERY);
    return query + (int64_t)encoder_rows * ENCODER_WIDTH * (test_columns(KEY) + test_columns(VALUE));
}

static int64_t executed(void) {
    int64_t sum = 0;
    for (int rank = 0; rank < rank_count; rank++) sum += ranks[rank].stats.multiply_adds;
    return sum;
}

static int64_t transfers(void) {
    int64_t sum = 0;
    for (int rank = 0; rank < rank_count; rank++) sum += ranks[rank].stats.transfers;
    return sum;
}

static void run_and_check(uint32_t flags, int decoder_rows, int encoder_rows) {
    together(forward);
    all_answered(XQKV_STATUS_OK, NULL, -1);
    results_are_right(flags, decoder_rows, encoder_rows, 0);
}

enum { GATHER_ALL = XQKV_FORWARD_FLAG_GATHER_QUERY | XQKV_FORWARD_FLAG_GATHER_KEY_VALUE };

static void gathered_results_are_the_uncut_layers(void) {
    static const uint32_t flags[] = {XQKV_FORWARD_FLAG_GATHER_QUERY, XQKV_FORWARD_FLAG_GATHER_KEY_VALUE, GATHER_ALL};
    for (int at = 0; at < 3; at++) {
        prepare_calls(flags[at], DECODER_ROWS, ENCODER_ROWS);
        run_and_check(flags[at], DECODER_ROWS, ENCODER_ROWS);
        CHECK((transfers() > 0) == (rank_count > 1));
        if (flags[at] == GATHER_ALL) CHECK(executed() == necessary(DECODER_ROWS, ENCODER_ROWS));
        prepare_calls(flags[at], DECODER_ROWS, 0);
        run_and_check(flags[at], DECODER_ROWS, 0);
        prepare_calls(flags[at], 0, ENCODER_ROWS);
        run_and_check(flags[at], 0, ENCODER_ROWS);
    }
}

static void rows_that_each_rank_has_a_part_of_come_together(void) {
    static const int64_t chunks[] = {0, 1, 5, 1000};
    for (int at = 0; at < 4; at++) {
        uint32_t flags = at == 2 ? GATHER_ALL : 0;
        prepare_calls(flags, DECODER_ROWS, ENCODER_ROWS);
        cut_rows(chunks[at]);
        run_and_check(flags, DECODER_ROWS, ENCODER_ROWS);
        for (int rank = 0; rank < rank_count && flags == 0; rank++) {
            int64_t others = (ENCODER_ROWS - rank_rows[rank]) * ENCODER_WIDTH * 4;
            CHECK(ranks[rank].stats.received_bytes >= others);
            CHECK(ranks[rank].stats.received_bytes <= others + 384 * (rank_count - 1));
        }
    }
}

/* Outputs that stay sharded by head, beside a communicator that is not used. */
static void a_plain_call_has_no_transfers(void) {
    xqkv_comm_info before, after;
    CHECK_OK(xqkv_comm_info_init(&before, sizeof before));
    after = before;
    CHECK_OK(xqkv_comm_get_info(ranks[0].comm, &before, &error));
    prepare_calls(0, DECODER_ROWS, ENCODER_ROWS);
    run_and_check(0, DECODER_ROWS, ENCODER_ROWS);
    CHECK_OK(xqkv_comm_get_info(ranks[0].comm, &after, &error));
    CHECK(before.transfers == after.transfers && transfers() == 0);
    for (int rank = 0; rank < rank_count; rank++) CHECK(ranks[rank].stats.received_bytes == 0);
}

static void ranks_do_all_of_it(int count) {
    open_ranks(count, 0, 20000);
    a_plain_call_has_no_transfers();
    gathered_results_are_the_uncut_layers();
    rows_that_each_rank_has_a_part_of_come_together();
    close_ranks();
}

static void shared_replicas_do_no_work_twice(int count) {
    open_ranks(count, XQKV_PROJECTION_FLAG_SHARE_REPLICAS, 20000);
    for (int at = 0; at < 3; at++) {
        uint32_t flags = at == 1 ? GATHER_ALL : 0;
        prepare_calls(flags, DECODER_ROWS, ENCODER_ROWS);
        if (at == 2) cut_rows(4);
        run_and_check(flags, DECODER_ROWS, ENCODER_ROWS);
        CHECK(executed() == necessary(DECODER_ROWS, ENCODER_ROWS));
    }
    prepare_calls(0, DECODER_ROWS, 0);
    run_and_check(0, DECODER_ROWS, 0);
    CHECK(transfers() == 0);
    close_ranks();
}

static void replicas_that_are_not_shared_do_their_work_twice(void) {
    open_ranks(4, 0, 20000);
    prepare_calls(0, DECODER_ROWS, ENCODER_ROWS);
    run_and_check(0, DECODER_ROWS, ENCODER_ROWS);
    CHECK(executed() == necessary(DECODER_ROWS, 2 * ENCODER_ROWS));
    close_ranks();
}

static void nothing_was_written(void) {
    for (int rank = 0; rank < rank_count; rank++) CHECK(is_poisoned(&outs[rank]));
}

/* The ranks' calls differ; all are told in what, none has written, and the next call is good. */
static void differing_calls(const char *word) {
    together(forward);
    all_answered(XQKV_STATUS_MISMATCH, word, -1);
    all_answered(XQKV_STATUS_MISMATCH, "rank", -1);
    nothing_was_written();
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    run_and_check(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
}

static void calls_that_differ_are_told_to_all(void) {
    open_ranks(3, 0, 20000);
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[1].call.encoder.rows = 0, ranks[1].call.encoder.data = NULL; /* it decodes, the others fill their caches */
    differing_calls("encoder rows");
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[2].call.decoder.rows = DECODER_ROWS - 1;
    differing_calls("decoder.rows");
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[0].call.layer = 1;
    differing_calls("layer");
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[0].call.flags = XQKV_FORWARD_FLAG_GATHER_QUERY;
    differing_calls("GATHER_KEY_VALUE");
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    cut_rows(4), ranks[1].call.chunk_rows = 5;
    differing_calls("chunk_rows");
    close_ranks();
}

/* One rank's call is refused for a reason of its own; the others hear of it and write nothing. */
static void refused_by_one(int rank, xqkv_status status, const char *word) {
    char name[16];
    snprintf(name, sizeof name, "rank %d", rank);
    together(forward);
    error = ranks[rank].error;
    CHECK(ranks[rank].status == status && strstr(error.message, word) != NULL);
    all_answered(XQKV_STATUS_MISMATCH, name, rank);
    nothing_was_written();
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    run_and_check(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
}

static void a_rank_that_refuses_its_call_tells_the_others(void) {
    open_ranks(3, 0, 20000);
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[1].call.decoder.row_stride = 1;
    refused_by_one(1, XQKV_STATUS_INVALID_STRIDE, "decoder");
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[2].call.workspace = NULL, ranks[2].call.workspace_bytes = 0;
    refused_by_one(2, XQKV_STATUS_WORKSPACE_TOO_SMALL, "workspace");
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[0].call.key.accumulate = 1;
    refused_by_one(0, XQKV_STATUS_NOT_SUPPORTED, "accumulate");
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[0].call.value.data = ranks[0].call.key.data;
    refused_by_one(0, XQKV_STATUS_OVERLAP, "key");
    close_ranks();
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void forward_unless_late(rank_state *own) {
    double begin = seconds();
    if (own->rank != 2) forward(own);
    own->seconds = seconds() - begin;
}

/* Calls with transfers are refused, all others go on. */
static void only_transfers_are_refused(int but) {
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    for (int rank = 0; rank < rank_count; rank++) {
        forward(&ranks[rank]);
        if (rank != but) CHECK(ranks[rank].status == XQKV_STATUS_COMM_POISONED);
    }
    nothing_was_written();
    prepare_calls(0, DECODER_ROWS, ENCODER_ROWS);
    run_and_check(0, DECODER_ROWS, ENCODER_ROWS);
}

static void another_communicator_makes_it_work_again(void) {
    destroy_comms();
    make_comms(20000);
    together(set_comm);
    all_answered(XQKV_STATUS_OK, NULL, -1);
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    run_and_check(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
}

static void a_late_rank_is_named_at_the_deadline(void) {
    int is_slow = getenv("XQKV_TEST_IS_SLOW") != NULL;
    open_ranks(3, 0, 500);
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    ranks[2].status = XQKV_STATUS_OK;
    together(forward_unless_late);
    all_answered(XQKV_STATUS_TIMED_OUT, "rank 2 was not there after 500 ms", 2);
    for (int rank = 0; rank < 2; rank++)
        CHECK(ranks[rank].seconds > 0.45 && (is_slow || ranks[rank].seconds < 0.6));
    forward(&ranks[2]);
    CHECK(ranks[2].status == XQKV_STATUS_PEER_LOST);
    only_transfers_are_refused(-1);
    another_communicator_makes_it_work_again();
    close_ranks();
}

static void an_aborted_communicator_is_replaced(void) {
    open_ranks(4, XQKV_PROJECTION_FLAG_SHARE_REPLICAS, 20000);
    CHECK_OK(xqkv_comm_abort(ranks[1].comm, &error));
    prepare_calls(0, DECODER_ROWS, ENCODER_ROWS);
    together(forward);
    CHECK(ranks[1].status == XQKV_STATUS_COMM_POISONED);
    all_answered(XQKV_STATUS_PEER_LOST, "rank 1", 1);
    another_communicator_makes_it_work_again();
    close_ranks();
}

/* The handles go; what is behind them stays with the projections. */
static void projections_keep_their_communicator(void) {
    open_ranks(2, 0, 20000);
    destroy_comms();
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    run_and_check(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    make_comms(20000);
    together(set_comm);
    for (int rank = 0; rank < 2; rank++) ranks[rank].status = XQKV_STATUS_INVALID_ARGUMENT;
    CHECK_OK(xqkv_projection_set_comm(ranks[0].projection, NULL, &error));
    CHECK_OK(xqkv_projection_set_comm(ranks[1].projection, NULL, &error));
    prepare_calls(GATHER_ALL, DECODER_ROWS, ENCODER_ROWS);
    together(forward);
    all_answered(XQKV_STATUS_INVALID_ARGUMENT, "communicator", -1);
    close_ranks();
}

static void specs_that_differ_are_told_to_all(void) {
    rank_count = 3;
    context = test_context(1);
    make_comms(20000);
    for (int rank = 0; rank < 3; rank++) prepare_rank(rank, 0), ranks[rank].projection = NULL;
    ranks[1].spec.key_scale = 0.5f;
    together(create);
    all_answered(XQKV_STATUS_MISMATCH, "key_scale", -1);
    for (int rank = 0; rank < 3; rank++) CHECK(ranks[rank].projection == NULL);
    destroy_comms();
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK(xqkv_handle_count() == 0);
}

/* EVEN takes rank and rank_count from the communicator. */
static void even_splits_follow_the_communicator(void) {
    rank_count = 2;
    context = test_context(1);
    make_comms(20000);
    for (int rank = 0; rank < 2; rank++) {
        prepare_rank(rank, 0);
        CHECK_OK(xqkv_projection_options_init(&ranks[rank].options, sizeof ranks[rank].options));
        ranks[rank].options.comm = ranks[rank].comm;
    }
    together(create);
    all_answered(XQKV_STATUS_OK, NULL, -1);
    for (int rank = 0; rank < 2; rank++) {
        CHECK_OK(xqkv_projection_get_shard(ranks[rank].projection, &ranks[rank].shard, &error));
        CHECK(ranks[rank].shard.query_head_begin == 2 * rank && ranks[rank].shard.query_head_count == 2);
    }
    close_ranks();
}

static void options_are_refused(void) {
    xqkv_spec spec = test_spec();
    xqkv_projection_options options;
    xqkv_projection *projection = NULL;
    context = test_context(1);
    CHECK_OK(xqkv_projection_options_init(&options, sizeof options));
    options.flags = XQKV_PROJECTION_FLAG_SHARE_REPLICAS;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "communicator",
                  xqkv_projection_create(context, &spec, &options, &projection, &error));
    options.flags = 0, options.comm = (const xqkv_comm *)(const void *)&options;
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "comm",
                  xqkv_projection_create(context, &spec, &options, &projection, &error));
    CHECK(projection == NULL);
    CHECK_OK(xqkv_context_destroy(context, &error));
    projection = ready_projection(1);
    CALL_REFUSED(projection, flags, XQKV_FORWARD_FLAG_GATHER_QUERY, XQKV_STATUS_INVALID_ARGUMENT, "communicator");
    CALL_REFUSED(projection, encoder_rank_rows, rank_rows, XQKV_STATUS_INVALID_ARGUMENT, "communicator");
    CALL_REFUSED(projection, chunk_rows, -1, XQKV_STATUS_INVALID_ARGUMENT, "chunk_rows");
    CALL_REFUSED(projection, flags, 16, XQKV_STATUS_INVALID_ARGUMENT, "flags is 16");
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

int main(void) {
    if (on_cuda()) return EXIT_SUCCESS;
    (void)test_rows(QUERY), (void)test_rows(KEY);
    for (int count = 1; count <= MOST_RANKS; count++) ranks_do_all_of_it(count);
    for (int count = 2; count <= MOST_RANKS; count += 2) shared_replicas_do_no_work_twice(count);
    replicas_that_are_not_shared_do_their_work_twice();
    calls_that_differ_are_told_to_all();
    a_rank_that_refuses_its_call_tells_the_others();
    a_late_rank_is_named_at_the_deadline();
    an_aborted_communicator_is_replaced();
    projections_keep_their_communicator();
    specs_that_differ_are_told_to_all();
    even_splits_follow_the_communicator();
    options_are_refused();
    return check_done();
}
