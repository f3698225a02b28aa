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
    NAMED(DUPLICATE_PART), NAMED(BUFFER_TOO_SMALL), NAMED(WRONG_MEMORY), NAMED(NOT_READY), NAMED(WORKSPACE_TOO_SMALL),
    NAMED(HANDLE_POISONED), NAMED(PLAN_NEEDED), NAMED(PLAN_MISMATCH), NAMED(NOT_SUPPORTED), NAMED(LIBRARY_MISSING),
    NAMED(LIBRARY_UNSUITABLE), NAMED(NO_DEVICE), NAMED(DEVICE_REFUSED), NAMED(OUT_OF_MEMORY), NAMED(THREAD_FAILED),
    NAMED(TOO_MANY_HANDLES),
    NAMED(CHECKPOINT_NOT_FOUND), NAMED(CHECKPOINT_UNREADABLE), NAMED(CHECKPOINT_CORRUPT),
    NAMED(CHECKPOINT_UNKNOWN_FAMILY), NAMED(CHECKPOINT_MISSING_TENSOR), NAMED(CHECKPOINT_MISMATCH),
    NAMED(DEVICE_FAILED), NAMED(CALLBACK_FAILED),
    NAMED(MISMATCH), NAMED(PEER_LOST), NAMED(TIMED_OUT), NAMED(COMM_POISONED), NAMED(PANIC),
};

enum { STATUSES = sizeof statuses / sizeof *statuses };

static const char *expected_name(int32_t number) {
    for (int at = 0; at < STATUSES; at++)
        if (statuses[at].number == number) return statuses[at].name;
    return "XQKV_STATUS_UNKNOWN";
}

static int32_t expected_effect(int32_t number) {
    if (strcmp(expected_name(number), "XQKV_STATUS_UNKNOWN") == 0) return 0;
    if (number == XQKV_STATUS_PANIC) return XQKV_EFFECT_HANDLE_POISONED;
    if (number == XQKV_STATUS_PEER_LOST || number == XQKV_STATUS_TIMED_OUT) return XQKV_EFFECT_COMMUNICATOR_POISONED;
    return number / 100 == 6 ? XQKV_EFFECT_OUTPUTS_UNDEFINED : XQKV_EFFECT_NONE;
}

static void each_number_has_its_name_and_effect(int32_t number) {
    CHECK(strcmp(xqkv_status_name(number), expected_name(number)) == 0);
    CHECK(xqkv_status_effect(number) == expected_effect(number));
}

int main(void) {
    for (int32_t number = -1; number < 1000; number++) each_number_has_its_name_and_effect(number);
    each_number_has_its_name_and_effect(INT32_MIN);
    each_number_has_its_name_and_effect(INT32_MAX);
    return check_done();
}
