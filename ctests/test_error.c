/* The caller's error: written whole by every call, never needed. */
#include "check.h"

static void failure_is_written_and_success_clears_it(void) {
    xqkv_error own;
    memset(&own, 'x', sizeof own);
    CHECK(xqkv_spec_check(NULL, &own) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK(own.status == XQKV_STATUS_NULL_ARGUMENT);
    CHECK(strcmp(own.message, "spec is NULL") == 0);
    CHECK(xqkv_context_destroy(NULL, &own) == XQKV_STATUS_OK);
    CHECK(own.status == XQKV_STATUS_OK && own.message[0] == '\0');
}

static void null_and_misaligned_errors_are_left_alone(void) {
    char bytes[sizeof(xqkv_error) + 8];
    memset(bytes, 'x', sizeof bytes);
    CHECK(xqkv_spec_check(NULL, NULL) == XQKV_STATUS_NULL_ARGUMENT);
    char *odd = bytes + 1 + (((size_t)(bytes + 1)) % 2 == 0);
    CHECK(xqkv_spec_check(NULL, (xqkv_error *)(void *)odd) == XQKV_STATUS_NULL_ARGUMENT);
    for (size_t at = 0; at < sizeof bytes; at++) CHECK(bytes[at] == 'x');
}

int main(void) {
    failure_is_written_and_success_clears_it();
    null_and_misaligned_errors_are_left_alone();
    return check_done();
}
