/* Threads: forwards side by side, against commits, against destroy, and in the child of a fork. */
#include "fixture.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4 };

static xqkv_projection *projection;
static int rounds = 400;

/* Nonzero if a call of every part ran on exactly one generation, the one that stats name. */
static int forward_is_whole(xqkv_status *status) {
    static outputs of_threads[THREADS + 1];
    static atomic_int threads;
    static _Thread_local outputs *out;
    if (out == NULL) out = &of_threads[atomic_fetch_add(&threads, 1) % (THREADS + 1)];
    xqkv_error own;
    xqkv_stats stats;
    xqkv_forward call = test_call(out, 3, 4);
    poison(out);
    xqkv_stats_init(&stats, sizeof stats);
    *status = run_forward(projection, &call, &stats, &own);
    int generation = (int)(stats.weights_version - 1) % 3, whole = 1;
    for (int part = QUERY; *status == XQKV_STATUS_OK && part <= VALUE; part++)
        whole &= has_rows(out, part, 0, part == QUERY ? 3 : 4, generation);
    return whole;
}

static void *run_forwards(void *failed) {
    for (int round = 0; round < rounds; round++) {
        xqkv_status status;
        int whole = forward_is_whole(&status);
        if (status == XQKV_STATUS_INVALID_HANDLE) break;
        *(int *)failed |= status != XQKV_STATUS_OK || !whole;
    }
    return NULL;
}

/* Runs forwards on several threads while `meanwhile` does its own on this one. */
static void beside_forwards(void (*meanwhile)(void)) {
    pthread_t threads[THREADS];
    int failed[THREADS] = {0};
    for (int thread = 0; thread < THREADS; thread++) pthread_create(&threads[thread], NULL, run_forwards, &failed[thread]);
    meanwhile();
    for (int thread = 0; thread < THREADS; thread++) {
        pthread_join(threads[thread], NULL);
        CHECK(!failed[thread]);
    }
}

static void nothing(void) {}

static void commit_generations(void) {
    for (int generation = 1; generation <= rounds / 10; generation++) load(projection, generation % 3);
}

static void run_in_a_second_context(void) {
    static outputs out;
    xqkv_projection *second = ready_projection(2);
    for (int round = 0; round < rounds; round++) {
        xqkv_forward call = test_call(&out, 3, 4);
        poison(&out);
        CHECK_OK(run_forward(second, &call, NULL, &error));
        for (int part = QUERY; part <= VALUE; part++) CHECK(has_rows(&out, part, 0, part == QUERY ? 3 : 4, 0));
    }
    CHECK_OK(xqkv_projection_destroy(second, &error));
}

static xqkv_update *shared;

static void *put_query(void *status) {
    static const float weight[12 * DECODER_WIDTH];
    xqkv_error own;
    xqkv_tensor tensor = test_tensor(weight, 12, DECODER_WIDTH);
    *(xqkv_status *)status = xqkv_update_put(shared, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &own);
    return NULL;
}

/* All put the same part: one is taken, and the others learn that it is there. */
static void one_update_may_be_filled_by_many(void) {
    pthread_t threads[THREADS];
    xqkv_status statuses[THREADS];
    int taken = 0;
    CHECK_OK(xqkv_update_begin(projection, &shared, &error));
    for (int thread = 0; thread < THREADS; thread++)
        pthread_create(&threads[thread], NULL, put_query, &statuses[thread]);
    for (int thread = 0; thread < THREADS; thread++) {
        pthread_join(threads[thread], NULL);
        taken += statuses[thread] == XQKV_STATUS_OK;
        CHECK(statuses[thread] == XQKV_STATUS_OK || statuses[thread] == XQKV_STATUS_DUPLICATE_PART);
    }
    CHECK(taken == 1);
    CHECK_OK(xqkv_update_abandon(shared, &error));
}

static void destroy(void) {
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_projection_destroy(projection, &error));
}

/* The child has none of the pool's threads; it does the work alone, and may destroy what it inherited. It ends by a
   signal, since valgrind would otherwise count as leaked what belongs to the threads that it does not have. */
static void the_child_of_a_fork_can_go_on(void) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        xqkv_status forward_status;
        int whole = forward_is_whole(&forward_status) && forward_status == XQKV_STATUS_OK;
        if (whole && xqkv_projection_destroy(projection, NULL) == XQKV_STATUS_OK) kill(getpid(), SIGKILL);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void destroy_at_the_end(void *handle) {
    xqkv_error own;
    CHECK(xqkv_projection_destroy(handle, &own) == XQKV_STATUS_OK);
}

static pthread_key_t last_breath;

static void *end_with_a_handle(void *handle) {
    xqkv_context_destroy(NULL, NULL); /* so that the library has what it keeps for a thread, and loses it first */
    pthread_setspecific(last_breath, handle);
    return NULL;
}

/* A handle may be destroyed by what runs when a thread ends, as Go's and Python's threads do it. */
static void a_thread_may_destroy_at_its_end(void) {
    pthread_t thread;
    xqkv_projection *held = ready_projection(2);
    CHECK(pthread_key_create(&last_breath, destroy_at_the_end) == 0);
    CHECK(pthread_create(&thread, NULL, end_with_a_handle, held) == 0);
    pthread_join(thread, NULL);
    CHECK(pthread_key_delete(last_breath) == 0);
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_projection_destroy(held, &error));
}

/* Enough work that the pool is used: every row of a batch has the bits it has alone, on any number of threads. */
static void large_calls_give_the_same_bits_on_any_number_of_threads(void) {
    enum { ROWS = 300, WIDTH = 64 };
    static float weight[WIDTH * WIDTH], rows[ROWS * WIDTH], first[ROWS * WIDTH], other[ROWS * WIDTH];
    for (int at = 0; at < WIDTH * WIDTH; at++) weight[at] = (float)(at % 1013) * 0.001f;
    for (int at = 0; at < ROWS * WIDTH; at++) rows[at] = (float)(at % 997) * 0.01f;
    for (int threads = 1; threads <= 3; threads++) {
        xqkv_context *context = test_context(threads);
        xqkv_spec spec = test_spec();
        xqkv_projection *large = NULL;
        xqkv_update *update = NULL;
        xqkv_forward call;
        spec.decoder_width = WIDTH, spec.query_heads = 2, spec.head_width = 32, spec.query_bias = 0, spec.layer_count = 1;
        CHECK_OK(xqkv_projection_create(context, &spec, NULL, &large, &error));
        CHECK_OK(xqkv_update_begin(large, &update, &error));
        xqkv_tensor tensor = test_tensor(weight, WIDTH, WIDTH);
        CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
        CHECK_OK(xqkv_update_commit(update, NULL, &error));
        CHECK_OK(xqkv_forward_init(&call, sizeof call));
        call.decoder.data = rows, call.decoder.rows = ROWS, call.decoder.dtype = call.query.dtype = XQKV_DTYPE_F32;
        call.query.data = threads == 1 ? first : other;
        CHECK_OK(run_forward(large, &call, NULL, &error));
        CHECK(threads == 1 || memcmp(first, other, sizeof first) == 0);
        call.decoder.data = rows + 7 * WIDTH, call.decoder.rows = 1, call.query.data = other;
        CHECK_OK(run_forward(large, &call, NULL, &error));
        CHECK(memcmp(first + 7 * WIDTH, other, WIDTH * sizeof(float)) == 0);
        CHECK_OK(xqkv_projection_destroy(large, &error));
        CHECK_OK(xqkv_context_destroy(context, &error));
    }
}

int main(void) {
    if (getenv("XQKV_TEST_IS_SLOW") != NULL) rounds = 20;
    test_rows(QUERY), test_rows(KEY);
    for (int threads = 1; threads <= 3; threads++) {
        projection = ready_projection(threads);
        beside_forwards(nothing);
        beside_forwards(run_in_a_second_context);
        beside_forwards(one_update_may_be_filled_by_many);
        beside_forwards(commit_generations);
        if (!on_cuda()) the_child_of_a_fork_can_go_on(); /* a driver does not survive a fork */
        beside_forwards(destroy);
    }
    a_thread_may_destroy_at_its_end();
    large_calls_give_the_same_bits_on_any_number_of_threads();
    return check_done();
}
