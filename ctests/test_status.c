/* Names and effects of statuses. */
#include "check.h"

#define NAMED(status) {XQKV_STATUS_##status, "XQKV_STATUS_" #status}

static const struct {
    int32_t number;
    const char *name;
} statuses[] = {
    NAMED(OK), NAMED(NULL_ARGUMENT), NAMED(INVALID_STRUCT_SIZE), NAMED(INVALID_HANDLE), NAMED(INVALID_ENUM),
    NAMED(INVALID_ARGUMENT), NAMED(SIZE_OVERFLOW), NAMED(INVALID_STRIDE), NAMED(MISALIGNED), NAMED(OVERLAP),
    NAMED(INVALID_SHAPE), NAMED(INVALID_DTYPE), NAMED(INDIVISIBLE_HEADS), NAMED(LAYER_OUT_OF_RANGE),
    NAMED(DUPLICATE_PART), NAMED(BUFFER_TOO_SMALL), NAMED(NOT_READY), NAMED(WORKSPACE_TOO_SMALL),
    NAMED(HANDLE_POISONED), NAMED(NOT_SUPPORTED), NAMED(OUT_OF_MEMORY), NAMED(THREAD_FAILED), NAMED(TOO_MANY_HANDLES),
    NAMED(CHECKPOINT_NOT_FOUND), NAMED(CHECKPOINT_UNREADABLE), NAMED(CHECKPOINT_CORRUPT),
    NAMED(CHECKPOINT_UNKNOWN_FAMILY), NAMED(CHECKPOINT_MISSING_TENSOR), NAMED(CHECKPOINT_MISMATCH), NAMED(PANIC),
};

enum { STATUSES = sizeof statuses / sizeof *statuses };

static const char *expected_name(int32_t number) {
    for (int at = 0; at < STATUSES; at++)
        if (statuses[at].number == number) return statuses[at].name;
    return "XQKV_STATUS_UNKNOWN";
}

/* Of this version's statuses only a panic leaves anything behind. */
static void each_number_has_its_name_and_effect(int32_t number) {
    const char *name = expected_name(number);
    int known = strcmp(name, "XQKV_STATUS_UNKNOWN") != 0;
    int32_t effect = number == XQKV_STATUS_PANIC ? XQKV_EFFECT_HANDLE_POISONED : known ? XQKV_EFFECT_NONE : 0;
    CHECK(strcmp(xqkv_status_name(number), name) == 0);
    CHECK(xqkv_status_effect(number) == effect);
}

int main(void) {
    for (int32_t number = -1; number < 1000; number++) each_number_has_its_name_and_effect(number);
    each_number_has_its_name_and_effect(INT32_MIN);
    each_number_has_its_name_and_effect(INT32_MAX);
    return check_done();
}
