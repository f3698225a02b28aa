/* Contexts: what they turn out to be, and options that are refused. */
#include "fixture.h"
#include <malloc.h>

/* These are tests of the host's contexts, whichever backend the suite runs on. */
static xqkv_context_options defaults(void) {
    xqkv_context_options options;
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.backend = XQKV_BACKEND_HOST;
    return options;
}

static void defaults_make_a_host_context_without_a_driver(void) {
    xqkv_context *context = NULL;
    xqkv_context_info info;
    CHECK_OK(xqkv_context_create(NULL, &context, &error));
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_OK(xqkv_context_get_info(context, &info, &error));
    CHECK(info.backend == XQKV_BACKEND_HOST && info.device == 0 && info.thread_count >= 1);
    CHECK(info.instruction_set >= XQKV_INSTRUCTION_SET_PORTABLE);
    CHECK(xqkv_handle_count() == 1);
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK_OK(xqkv_context_destroy(NULL, &error));
}

static void defaults_make_a_cuda_context_where_one_answers(void) {
    xqkv_context *context = NULL;
    xqkv_context_info info;
    CHECK_OK(xqkv_context_create(NULL, &context, &error));
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_OK(xqkv_context_get_info(context, &info, &error));
    CHECK(info.backend == XQKV_BACKEND_CUDA && info.device == 0 && info.thread_count == 0);
    CHECK(info.instruction_set == 0 && info.compute_capability >= 50 && info.multiprocessor_count >= 1);
    CHECK(info.driver_version >= 12000 && info.cublaslt_version >= 120000);
    CHECK_OK(xqkv_context_destroy(context, &error));
}

static void threads_and_instructions_are_as_asked(void) {
    xqkv_context_options options = defaults();
    xqkv_context_info info;
    xqkv_context *context = NULL;
    options.backend = XQKV_BACKEND_HOST;
    options.thread_count = 3;
    options.instruction_set = XQKV_INSTRUCTION_SET_PORTABLE;
    CHECK_OK(xqkv_context_create(&options, &context, &error));
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_OK(xqkv_context_get_info(context, &info, &error));
    CHECK(info.thread_count == 3 && info.instruction_set == XQKV_INSTRUCTION_SET_PORTABLE);
    CHECK_OK(xqkv_context_destroy(context, &error));
}

/* Refused, and accepted again without options. */
static void refused(xqkv_context_options options, xqkv_status status, const char *word) {
    xqkv_context *context = NULL;
    CHECK_REFUSED(status, word, xqkv_context_create(&options, &context, &error));
    CHECK(context == NULL);
    CHECK_OK(xqkv_context_create(NULL, &context, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

#define REFUSED(field, value, status)                    \
    do {                                                 \
        xqkv_context_options options = defaults();       \
        options.field = (value);                         \
        refused(options, (status), #field);              \
    } while (0)

static void *no_memory(int64_t bytes, int64_t alignment, void *stream, void *user) {
    return (void)bytes, (void)alignment, (void)stream, user;
}

static void nothing_freed(void *memory, int64_t bytes, void *stream, void *user) {
    (void)memory, (void)bytes, (void)stream, (void)user;
}

static void no_tasks(int64_t count, xqkv_task task, void *task_user, void *user) {
    (void)count, (void)task, (void)task_user, (void)user;
}

static void bad_options_are_refused(void) {
    int something = 0;
    REFUSED(backend, 9, XQKV_STATUS_INVALID_ENUM);
    REFUSED(backend, -1, XQKV_STATUS_INVALID_ENUM);
    REFUSED(device, 1, XQKV_STATUS_INVALID_ARGUMENT);
    REFUSED(thread_count, -1, XQKV_STATUS_INVALID_ARGUMENT);
    REFUSED(thread_count, 1025, XQKV_STATUS_INVALID_ARGUMENT);
    REFUSED(instruction_set, 77, XQKV_STATUS_INVALID_ENUM);
    REFUSED(instruction_set, INT32_MIN, XQKV_STATUS_INVALID_ENUM);
    REFUSED(log_level, 5, XQKV_STATUS_INVALID_ENUM);
    REFUSED(log_level, -1, XQKV_STATUS_INVALID_ENUM);
    REFUSED(thread_count, INT32_MIN, XQKV_STATUS_INVALID_ARGUMENT);
    REFUSED(allocate, no_memory, XQKV_STATUS_NOT_SUPPORTED);
    REFUSED(free, nothing_freed, XQKV_STATUS_NOT_SUPPORTED);
    REFUSED(cuda_context, &something, XQKV_STATUS_NOT_SUPPORTED);
    REFUSED(cublaslt_handle, &something, XQKV_STATUS_NOT_SUPPORTED);
    xqkv_context_options cuda = defaults();
    cuda.backend = XQKV_BACKEND_CUDA;
    if (!on_cuda()) refused(cuda, XQKV_STATUS_LIBRARY_MISSING, "XQKV_CUDA_LIBRARY");
    cuda.parallel_for = no_tasks;
    refused(cuda, XQKV_STATUS_NOT_SUPPORTED, "parallel_for");
}

static void sizes_and_nulls_are_refused(void) {
    xqkv_context_options options = defaults();
    xqkv_context *context = NULL;
    xqkv_context_info info;
    CHECK_SIZES(xqkv_context_options, options, xqkv_context_create(&options, &context, &error));
    CHECK(context == NULL);
    CHECK(xqkv_context_options_init(NULL, sizeof options) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK(xqkv_context_info_init(NULL, sizeof info) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "context", xqkv_context_create(NULL, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "context", xqkv_context_get_info(NULL, &info, &error));
    CHECK_OK(xqkv_context_create(NULL, &context, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "info", xqkv_context_get_info(context, NULL, &error));
    info.thread_count = -7;
    CHECK_SIZES(xqkv_context_info, info, xqkv_context_get_info(context, &info, &error));
    CHECK(info.thread_count == -7);
    CHECK_OK(xqkv_context_get_info(context, &info, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

/* Leaves some freed memory in the one heap: glibc ends a process whose new thread finds not even a few bytes. What it gives
   is to be freed later, so that the heap is not trimmed. */
static void *reserve(void) {
    void *blocks[64];
    mallopt(M_ARENA_MAX, 1);
    for (int at = 0; at < 64; at++) blocks[at] = malloc(1 << 16);
    void *last = malloc(64);
    for (int at = 0; at < 64; at++) free(blocks[at]);
    return last;
}

/* With memory for a few of the threads' stacks only. */
static void threads_that_cannot_start_are_a_status_and_leave_nothing(void) {
    xqkv_context_options options = defaults();
    xqkv_context *context = NULL;
    options.thread_count = 1024;
    void *last = reserve();
    allow(1 << 26);
    CHECK_REFUSED(XQKV_STATUS_THREAD_FAILED, "could not be started", xqkv_context_create(&options, &context, &error));
    allow(-1);
    free(last);
    CHECK(context == NULL && xqkv_handle_count() == 0);
    options.thread_count = 2;
    CHECK_OK(xqkv_context_create(&options, &context, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

int main(void) {
    /* So that a machine with a GPU tests what one without it does. */
    if (!on_cuda()) setenv("XQKV_CUDA_LIBRARY", "/nonexistent/libcuda.so.1", 1);
    if (on_cuda()) defaults_make_a_cuda_context_where_one_answers();
    else defaults_make_a_host_context_without_a_driver();
    threads_and_instructions_are_as_asked();
    bad_options_are_refused();
    sizes_and_nulls_are_refused();
    /* Where the process has a driver as well, so little memory may end it: glibc aborts if a new thread gets none. */
    if (!on_cuda() && getenv("XQKV_TEST_IS_SLOW") == NULL) threads_that_cannot_start_are_a_status_and_leave_nothing();
    return check_done();
}
