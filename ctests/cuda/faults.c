/* Each call of the driver and of cuBLASLt fails once: nothing aborts, nothing leaks, the status tells what was left, and
   the same calls work afterwards. */
#include "gpu.h"

static const int driver_statuses[] = {2, 999}, cublaslt_statuses[] = {3, 13};

/* Calls that a scenario makes before it destroys what it made. */
static uint64_t calls_before_the_end;

/* Whether the refusal holds its promise; one with undefined outputs is for forwards only. */
static int accepted(xqkv_status status, int is_forward) {
    int effect = xqkv_status_effect(status);
    snprintf(check_detail, sizeof check_detail, "%s, effect %d", xqkv_status_name(status), effect);
    return status == XQKV_STATUS_OK ||
           (error.message[0] != '\0' &&
            (effect == XQKV_EFFECT_NONE || (is_forward && effect == XQKV_EFFECT_OUTPUTS_UNDEFINED)));
}

/* Makes a call that may fail once: it is made again, as it promises that it may be. */
#define TRY(is_forward, call)                                          \
    do {                                                               \
        xqkv_status first = (call);                                    \
        CHECK(accepted(first, (is_forward)));                          \
        if (first != XQKV_STATUS_OK) CHECK_OK(call);                   \
    } while (0)

/* Everything that an engine does, from the context to its end. */
static void scenario(void) {
    xqkv_context_options options = gpu_options();
    xqkv_context *context = NULL;
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_plan *plan = NULL;
    TRY(0, xqkv_context_create(&options, &context, &error));
    projection = test_projection(context, NULL);
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    put_all(update, 0);
    TRY(0, xqkv_update_commit(update, NULL, &error));
    xqkv_forward call = gpu_call(3, 4);
    TRY(0, xqkv_plan_create(projection, &call, NULL, &plan, &error));
    TRY(1, xqkv_projection_forward(projection, &call, NULL, &error));
    call.plan = plan;
    TRY(1, xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    CHECK_OK(put_weight(update, 0, KEY, 0));
    TRY(0, xqkv_update_commit(update, NULL, &error));
    TRY(0, xqkv_context_reclaim(context, &gpu_stream, 1, NULL, &error));
    TRY(1, xqkv_projection_forward(projection, &call, NULL, &error));
    /* The end of the context is the engine's word that its work is done; this call is counted, and may fail as well. */
    CHECK(cuStreamSynchronize(gpu_stream) == 0 || cuStreamSynchronize(gpu_stream) == 0);
    calls_before_the_end = gpusim_calls(NULL);
    CHECK_OK(xqkv_plan_destroy(plan, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

/* The name of the call that a scenario makes as its nth, so that the status is one of its library's. */
static const char *call_name(uint64_t nth) {
    const char *name = gpusim_call_log(nth - 1);
    return name == NULL ? "" : name;
}

typedef struct {
    int64_t allocations, contexts, streams, events, cublaslt;
} living;

static living alive(void) {
    living now = {gpusim_live("allocations"), gpusim_live("contexts"), gpusim_live("streams"), gpusim_live("events"),
                  gpusim_live("cublaslt")};
    return now;
}

/* What a failed undoing leaves is the driver's to answer for, and without a context nothing can be freed in it; all else
   must be gone. */
static int undoes(uint64_t nth, const char *name, uint64_t end) {
    return nth > end || strstr(name, "Free") != NULL || strstr(name, "estroy") != NULL || strstr(name, "Release") != NULL ||
           strcmp(name, "cuCtxPopCurrent_v2") == 0;
}

static void fail_nth(uint64_t nth, const char *name, int status, uint64_t end) {
    living before = alive();
    int failures = check_failures, may_leave = undoes(nth, name, end);
    poison_device();
    gpusim_fail(NULL, (int64_t)nth, status);
    scenario();
    gpusim_fail(NULL, 0, 0);
    GPU(cuCtxSetCurrent(gpu_context));
    CHECK(may_leave || has_rows(fetched(gpu_stream), QUERY, 0, 3, 0));
    living after = alive();
    CHECK(may_leave || memcmp(&before, &after, sizeof before) == 0);
    snprintf(check_detail, sizeof check_detail, "%s", gpusim_violations() == 0 ? "" : gpusim_violation(0));
    CHECK(may_leave || gpusim_violations() == 0);
    gpusim_clear_violations();
    CHECK(xqkv_handle_count() == 0);
    if (check_failures != failures) printf("    when call %d, %s, answered %d\n", (int)nth, name, status);
}

int main(void) {
    static const char *names[4096];
    gpu_begin();
    scenario();
    gpusim_reset_calls();
    scenario();
    uint64_t count = gpusim_calls(NULL), end = calls_before_the_end;
    CHECK(count > 50 && count < 4096);
    for (uint64_t nth = 1; nth <= count && nth < 4096; nth++) names[nth] = call_name(nth);
    GPU(cuStreamSynchronize(gpu_stream));
    for (uint64_t nth = 1; nth <= count && nth < 4096 && check_failures < 10; nth++) {
        const int *statuses = strncmp(names[nth], "cublas", 6) == 0 ? cublaslt_statuses : driver_statuses;
        for (int status = 0; status < 2; status++) fail_nth(nth, names[nth], statuses[status], end);
    }
    return check_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
