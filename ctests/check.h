/* Checks for the C suite: each failed one prints where, what, and the library's message. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xqkv.h>

static int check_failures;
static xqkv_error error;

/* What a comparison found, for this thread's next check to print if it fails. */
static _Thread_local char check_detail[160];

static inline int check(int holds, const char *what, const char *file, int line) {
    if (!holds) {
        printf("%s:%d: %s\n    %s\n    last message: %s\n", file, line, what, check_detail, error.message);
        check_failures++;
    }
    check_detail[0] = '\0';
    return holds;
}

/* A refusal has this status, no effect, and a message that speaks of this word. */
static inline int check_refused(xqkv_status given, xqkv_status expected, const char *word, const char *file, int line) {
    char what[256];
    int holds = given == expected && error.status == expected && strstr(error.message, word) != NULL &&
                xqkv_status_effect(given) == XQKV_EFFECT_NONE;
    snprintf(what, sizeof what, "%s, expected %s about \"%s\"", xqkv_status_name(given), xqkv_status_name(expected), word);
    return check(holds, what, file, line);
}

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
#define CHECK_OK(call) check((call) == XQKV_STATUS_OK, #call, __FILE__, __LINE__)
#define CHECK_REFUSED(status, word, call) check_refused((call), (status), (word), __FILE__, __LINE__)

/* Each size but the right one is refused, by the struct's init function and by a call that uses the struct. */
#define CHECK_SIZES(type, plain, call)                                                                  \
    do {                                                                                                \
        static const uint32_t sizes[] = {0, sizeof(type) - 1, sizeof(type) + 4, UINT32_MAX};             \
        for (int size = 0; size < 4; size++) {                                                          \
            CHECK(type##_init(&(plain), sizes[size]) == XQKV_STATUS_INVALID_STRUCT_SIZE);                \
            (plain).struct_size = sizes[size];                                                          \
            CHECK_REFUSED(XQKV_STATUS_INVALID_STRUCT_SIZE, #type " is", (call));                        \
        }                                                                                               \
        (plain).struct_size = sizeof(type);                                                             \
    } while (0)

/* Every program ends with this: no handle may be left. */
static inline int check_done(void) {
    CHECK(xqkv_handle_count() == 0);
    return check_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
