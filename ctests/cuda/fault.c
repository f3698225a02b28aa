/* Every call of the driver and of cuBLASLt fails once: no crash, no leak, a status that tells what is left, and the next
   forward works. Only on the simulated GPU, which can be told to fail. */
#include "engine.h"

static int64_t (*calls)(const char *);
static void (*fail)(const char *, int64_t, int);
static int64_t (*live)(const char *);
static void (*clear)(void);

/* Which of the library's calls fails and how; the engine's own in between are not counted and do not fail. */
static int64_t target, done, mark;
static int fault_status;

static void library_begins(void) {
    mark = calls(NULL);
    if (target > done) fail(NULL, target - done, fault_status);
}

static void library_ends(void) {
    done += calls(NULL) - mark;
    fail(NULL, 0, 0);
}

/* A failure that is allowed: nothing changed, or only outputs are undefined. */
static int is_sound(xqkv_status status) {
    int32_t effect = xqkv_status_effect(status);
    return status == XQKV_STATUS_OK || effect == XQKV_EFFECT_NONE || effect == XQKV_EFFECT_OUTPUTS_UNDEFINED;
}

/* The fault may lie in this very call, but only once. */
static void forward_works_again(xqkv_projection *projection, device_call *made) {
    xqkv_status status = xqkv_projection_forward(projection, &made->call, NULL, &error);
    CHECK(is_sound(status));
    if (status != XQKV_STATUS_OK) CHECK_OK(xqkv_projection_forward(projection, &made->call, NULL, &error));
    library_ends();
    CHECK(has_results(made, 3, 4, 0, 0));
    library_begins();
}

/* A context's life; each step may fail, and what was made is unmade whatever happens. */
static void live_once(device_call *made) {
    static xqkv_context_options options;
    xqkv_context *context = NULL;
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_plan *plan = NULL;
    xqkv_spec spec = test_spec();
    library_begins();
    xqkv_context_options_init(&options, sizeof options);
    options.backend = XQKV_BACKEND_CUDA;
    xqkv_status status = xqkv_context_create(&options, &context, &error);
    CHECK(is_sound(status));
    if (status == XQKV_STATUS_OK) status = xqkv_projection_create(context, &spec, NULL, &projection, &error);
    if (status == XQKV_STATUS_OK) status = xqkv_update_begin(projection, &update, &error);
    if (status == XQKV_STATUS_OK) {
        for (int layer = 0; layer < LAYERS && status == XQKV_STATUS_OK; layer++)
            for (int part = QUERY; part <= VALUE && status == XQKV_STATUS_OK; part++) {
                status = put_weight(update, layer, part, 0);
                if (status == XQKV_STATUS_OK && part != KEY) status = put_bias(update, layer, part);
            }
        CHECK(is_sound(status));
        if (status == XQKV_STATUS_OK) status = xqkv_update_commit(update, NULL, &error);
        /* Nothing was lost: it can be committed again. */
        if (status != XQKV_STATUS_OK && is_sound(status)) {
            int64_t version = -1;
            CHECK_OK(xqkv_projection_get_weights_version(projection, &version, &error));
            CHECK(version == 0);
            CHECK_OK(xqkv_update_abandon(update, &error));
        }
    }
    if (status == XQKV_STATUS_OK) {
        status = xqkv_projection_forward(projection, &made->call, NULL, &error);
        CHECK(is_sound(status));
        forward_works_again(projection, made);
        status = xqkv_plan_create(projection, &made->call, NULL, &plan, &error);
        CHECK(is_sound(status));
    }
    if (plan != NULL) {
        made->call.plan = plan;
        CHECK(is_sound(xqkv_projection_forward(projection, &made->call, NULL, &error)));
        forward_works_again(projection, made);
        made->call.plan = NULL;
        CHECK(is_sound(xqkv_context_reclaim(context, &made->call.stream, 1, NULL, &error)));
    }
    library_ends();
    synchronize();
    library_begins();
    xqkv_plan_destroy(plan, &error);
    xqkv_projection_destroy(projection, &error);
    xqkv_context_destroy(context, &error);
    library_ends();
}

static void each_call_may_fail(device_call *made, int status) {
    target = done = 0, fault_status = status;
    live_once(made);
    int64_t count = done;
    CHECK(count > 100);
    for (int64_t nth = 1; nth <= count; nth++) {
        int64_t memory = live("allocations"), streams = live("streams"), handles = live("cublaslt"), events = live("events");
        int failures = check_failures;
        target = nth, done = 0;
        live_once(made);
        int kept = live("allocations") == memory && live("streams") == streams && live("events") == events &&
                   live("cublaslt") == handles && xqkv_handle_count() == 0;
        /* What a call that gives back one thing refuses may be lost, and nothing else. */
        snprintf(check_detail, sizeof check_detail, "call %lld of %lld, status %d", (long long)nth, (long long)count, status);
        CHECK(kept || live("allocations") + live("streams") + live("events") + live("cublaslt") <=
                          memory + streams + handles + events + 1);
        if (check_failures > failures + 3) return;
    }
    clear();
}

int main(void) {
    *(void **)&calls = simulated("gpusim_calls");
    *(void **)&fail = simulated("gpusim_fail");
    *(void **)&live = simulated("gpusim_live");
    *(void **)&clear = simulated("gpusim_clear_violations");
    if (fail == NULL) return EXIT_SUCCESS;
    engine_open();
    device_call made = new_call(3, 4);
    made.call.stream = new_stream();
    each_call_may_fail(&made, 2);
    each_call_may_fail(&made, 999);
    free_call(&made);
    DRIVER("cuStreamDestroy_v2", (void *), (made.call.stream));
    return engine_close();
}
