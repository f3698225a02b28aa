/* An engine's own threads: parallel_for at the width of whisper-base, over a pool and over callbacks that err. */
#include "check.h"
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { WIDTH = 512, HEADS = 8, HEAD_WIDTH = 64, MOST_DECODER_ROWS = 70, MOST_ENCODER_ROWS = 1500, WORKERS = 3,
       THREADS = WORKERS + 1, MOST_JOBS = 16 };

typedef struct {
    float query[MOST_DECODER_ROWS * WIDTH], key[MOST_ENCODER_ROWS * WIDTH], value[MOST_ENCODER_ROWS * WIDTH];
} outputs;

static float weights[3][WIDTH * WIDTH], rows[MOST_ENCODER_ROWS * WIDTH];
static outputs expected;
static int decoder_rows = MOST_DECODER_ROWS, encoder_rows = MOST_ENCODER_ROWS;

/* A pool as an engine has one: threads take tasks of any job that is posted, and whoever posts takes part. */
typedef struct {
    xqkv_task task;
    void *task_user;
    int64_t count, next, done;
} job;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t workers[WORKERS];
    job *jobs[MOST_JOBS];
    int stopping;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Runs one task of a job outside of the lock. */
static void run_one(job *of) {
    int64_t index = of->next++;
    pthread_mutex_unlock(&pool.lock);
    of->task(index, of->task_user);
    pthread_mutex_lock(&pool.lock);
    if (++of->done == of->count) pthread_cond_broadcast(&pool.changed);
}

static job *waiting_job(void) {
    for (int at = 0; at < MOST_JOBS; at++)
        if (pool.jobs[at] != NULL && pool.jobs[at]->next < pool.jobs[at]->count) return pool.jobs[at];
    return NULL;
}

static void *work(void *unused) {
    pthread_mutex_lock(&pool.lock);
    while (!pool.stopping) {
        job *found = waiting_job();
        if (found != NULL) run_one(found);
        else pthread_cond_wait(&pool.changed, &pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
    return unused;
}

static void on_pool(int64_t count, xqkv_task task, void *task_user, void *calls) {
    job own = {task, task_user, count, 0, 0};
    int at = 0;
    if (calls != NULL) atomic_fetch_add((atomic_int *)calls, 1);
    pthread_mutex_lock(&pool.lock);
    while (pool.jobs[at] != NULL) at++;
    pool.jobs[at] = &own;
    pthread_cond_broadcast(&pool.changed);
    while (own.next < own.count) run_one(&own);
    while (own.done < own.count) pthread_cond_wait(&pool.changed, &pool.lock);
    pool.jobs[at] = NULL;
    pthread_mutex_unlock(&pool.lock);
}

static void start_pool(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    /* An engine's stacks may be small. */
    pthread_attr_setstacksize(&attributes, 1 << 17);
    for (int worker = 0; worker < WORKERS; worker++) pthread_create(&pool.workers[worker], &attributes, work, NULL);
    pthread_attr_destroy(&attributes);
}

static void stop_pool(void) {
    pthread_mutex_lock(&pool.lock);
    pool.stopping = 1;
    pthread_cond_broadcast(&pool.changed);
    pthread_mutex_unlock(&pool.lock);
    for (int worker = 0; worker < WORKERS; worker++) pthread_join(pool.workers[worker], NULL);
}

/* Numbers whose sums round, so that another order would show. */
static void fill(float *elements, int count, uint32_t seed) {
    for (int at = 0; at < count; at++) {
        seed = seed * 1664525 + 1013904223;
        elements[at] = (float)(int32_t)seed / 2147483648.0f;
    }
}

static xqkv_context *context_on(xqkv_parallel_for_callback parallel_for, void *user, int threads) {
    xqkv_context_options options;
    xqkv_context *context = NULL;
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.backend = XQKV_BACKEND_HOST;
    options.thread_count = threads;
    options.parallel_for = parallel_for;
    options.parallel_for_user = user;
    CHECK_OK(xqkv_context_create(&options, &context, &error));
    return context;
}

static void put(xqkv_update *update, int32_t part, const float *weight) {
    xqkv_tensor tensor;
    CHECK_OK(xqkv_tensor_init(&tensor, sizeof tensor));
    tensor.dtype = XQKV_DTYPE_F32;
    tensor.data = weight;
    tensor.rows = tensor.columns = WIDTH;
    CHECK_OK(xqkv_update_put(update, 0, part, XQKV_KIND_WEIGHT, &tensor, &error));
}

/* A loaded projection, which alone keeps the context. */
static xqkv_projection *projection_on(xqkv_parallel_for_callback parallel_for, void *user, int threads) {
    xqkv_context *context = context_on(parallel_for, user, threads);
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_spec spec;
    CHECK_OK(xqkv_spec_init(&spec, sizeof spec));
    spec.weight_dtype = XQKV_DTYPE_F32;
    spec.layer_count = 1;
    spec.decoder_width = spec.encoder_width = WIDTH;
    spec.query_heads = spec.key_value_heads = HEADS;
    spec.head_width = HEAD_WIDTH;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    for (int32_t part = XQKV_PART_QUERY, at = 0; at < 3; part++, at++) put(update, part, weights[at]);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    return projection;
}

static xqkv_status forward(const xqkv_projection *projection, outputs *out, int decoder, int encoder, xqkv_error *own) {
    xqkv_forward call;
    xqkv_forward_init(&call, sizeof call);
    xqkv_view *views[] = {&call.query, &call.key, &call.value};
    memset(out, 0xff, sizeof *out);
    call.decoder.data = call.encoder.data = rows;
    call.decoder.rows = decoder;
    call.encoder.rows = encoder;
    call.decoder.dtype = call.encoder.dtype = XQKV_DTYPE_F32;
    call.query.data = out->query;
    call.key.data = out->key;
    call.value.data = out->value;
    for (int view = 0; view < 3; view++) views[view]->dtype = XQKV_DTYPE_F32;
    return xqkv_projection_forward(projection, &call, NULL, own);
}

static xqkv_status whole_forward(const xqkv_projection *projection, outputs *out, xqkv_error *own) {
    return forward(projection, out, decoder_rows, encoder_rows, own);
}

static int is_expected(const outputs *out) { return memcmp(out, &expected, sizeof expected) == 0; }

static void compute_expected(void) {
    xqkv_projection *own_threads = projection_on(NULL, NULL, THREADS);
    CHECK_OK(whole_forward(own_threads, &expected, &error));
    CHECK_OK(xqkv_projection_destroy(own_threads, &error));
}

static outputs result;

static void passes(xqkv_parallel_for_callback parallel_for) {
    xqkv_projection *projection = projection_on(parallel_for, NULL, THREADS);
    CHECK_OK(whole_forward(projection, &result, &error));
    CHECK(is_expected(&result));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void in_order(int64_t count, xqkv_task task, void *task_user, void *user) {
    (void)user;
    CHECK(count == THREADS);
    for (int64_t index = 0; index < count; index++) task(index, task_user);
}

static void reversed(int64_t count, xqkv_task task, void *task_user, void *user) {
    (void)user;
    while (count-- > 0) task(count, task_user);
}

static void any_order_and_any_threads_give_the_same_bits(void) {
    passes(on_pool);
    passes(in_order);
    passes(reversed);
}

static int thread_count(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (CHECK(tasks != NULL) && readdir(tasks) != NULL) count++;
    closedir(tasks);
    return count;
}

static void no_thread_is_started(void) {
    int before = thread_count();
    xqkv_context_info info;
    xqkv_context *context = context_on(on_pool, NULL, 7);
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_OK(xqkv_context_get_info(context, &info, &error));
    CHECK(info.thread_count == 7 && thread_count() == before);
    CHECK_OK(xqkv_context_destroy(context, &error));
    xqkv_projection *projection = projection_on(on_pool, NULL, 0);
    CHECK_OK(whole_forward(projection, &result, &error));
    CHECK(is_expected(&result) && thread_count() == before);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void little_work_and_one_thread_do_without_it(void) {
    atomic_int calls = 0;
    xqkv_projection *many = projection_on(on_pool, &calls, THREADS), *one = projection_on(on_pool, &calls, 1);
    CHECK_OK(forward(many, &result, 1, 0, &error));
    CHECK_OK(whole_forward(one, &result, &error));
    CHECK(calls == 0 && is_expected(&result));
    CHECK_OK(whole_forward(many, &result, &error));
    CHECK(calls == 1);
    CHECK_OK(xqkv_projection_destroy(many, &error));
    CHECK_OK(xqkv_projection_destroy(one, &error));
}

enum { ROUNDS = 4, CALLERS = 3 };

static outputs of_callers[CALLERS];
static xqkv_projection *shared;
static atomic_int wrong;

static void forward_as(int64_t caller, void *unused) {
    xqkv_error own;
    (void)unused;
    if (whole_forward(shared, &of_callers[caller], &own) != XQKV_STATUS_OK) wrong++;
    if (!is_expected(&of_callers[caller])) wrong++;
}

static void *call_often(void *caller) {
    for (int round = 0; round < ROUNDS; round++) forward_as((outputs *)caller - of_callers, NULL);
    return NULL;
}

static void forwards_at_the_same_time_share_the_pool(void) {
    pthread_t callers[CALLERS];
    shared = projection_on(on_pool, NULL, THREADS);
    for (int caller = 0; caller < CALLERS; caller++)
        pthread_create(&callers[caller], NULL, call_often, &of_callers[caller]);
    for (int caller = 0; caller < CALLERS; caller++) pthread_join(callers[caller], NULL);
    CHECK(wrong == 0);
}

static void forwards_may_be_made_inside_the_pools_tasks(void) {
    on_pool(CALLERS, forward_as, NULL, NULL);
    CHECK(wrong == 0);
    CHECK_OK(xqkv_projection_destroy(shared, &error));
}

/* A forward over this callback is refused with these words. */
static void fails(xqkv_parallel_for_callback parallel_for, const char *words) {
    xqkv_projection *projection = projection_on(parallel_for, NULL, THREADS);
    for (int round = 0; round < 2; round++) {
        CHECK(whole_forward(projection, &result, &error) == XQKV_STATUS_CALLBACK_FAILED);
        CHECK(xqkv_status_effect(error.status) == XQKV_EFFECT_OUTPUTS_UNDEFINED);
        CHECK(strstr(error.message, words) != NULL);
    }
    CHECK_OK(xqkv_projection_destroy(projection, &error));
}

static void twice(int64_t count, xqkv_task task, void *task_user, void *user) {
    in_order(count, task, task_user, user);
    on_pool(count, task, task_user, user);
}

static void all_but_the_last(int64_t count, xqkv_task task, void *task_user, void *user) {
    on_pool(count - 1, task, task_user, user);
}

static void none(int64_t count, xqkv_task task, void *task_user, void *user) {
    (void)count, (void)task, (void)task_user, (void)user;
}

static void one_too_many(int64_t count, xqkv_task task, void *task_user, void *user) {
    task(-1, task_user);
    in_order(count, task, task_user, user);
    task(count, task_user);
    task(INT64_MAX, task_user);
}

static void callbacks_that_err_are_found(void) {
    fails(twice, "skipped 0, repeated 4, ran 0");
    fails(all_but_the_last, "skipped 1, repeated 0, ran 0");
    fails(none, "skipped 4, repeated 0, ran 0");
    fails(one_too_many, "skipped 0, repeated 0, ran 3");
}

static struct {
    xqkv_task task;
    void *task_user;
    pthread_t thread;
    atomic_int begun;
} late;

static void *run_alone(void *unused) {
    late.begun = 1;
    late.task(0, late.task_user);
    return unused;
}

/* Returns while a thread may still be at the first task. */
static void too_early(int64_t count, xqkv_task task, void *task_user, void *user) {
    (void)count, (void)user;
    late.task = task;
    late.task_user = task_user;
    late.begun = 0;
    pthread_create(&late.thread, NULL, run_alone, NULL);
    while (!late.begun) usleep(100);
}

static void nothing_is_written_after_the_forward(void) {
    static outputs then;
    xqkv_projection *projection = projection_on(too_early, NULL, THREADS);
    CHECK(whole_forward(projection, &result, &error) == XQKV_STATUS_CALLBACK_FAILED);
    memcpy(&then, &result, sizeof then);
    pthread_join(late.thread, NULL);
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    for (int64_t index = 0; index < THREADS; index++) late.task(index, late.task_user);
    CHECK(memcmp(&then, &result, sizeof then) == 0);
}

int main(void) {
    if (getenv("XQKV_TEST_IS_SLOW") != NULL) decoder_rows = encoder_rows = 5;
    fill(rows, MOST_ENCODER_ROWS * WIDTH, 1);
    for (int part = 0; part < 3; part++) fill(weights[part], WIDTH * WIDTH, (uint32_t)part + 2);
    start_pool();
    compute_expected();
    any_order_and_any_threads_give_the_same_bits();
    no_thread_is_started();
    little_work_and_one_thread_do_without_it();
    forwards_at_the_same_time_share_the_pool();
    forwards_may_be_made_inside_the_pools_tasks();
    callbacks_that_err_are_found();
    nothing_is_written_after_the_forward();
    stop_pool();
    return check_done();
}
