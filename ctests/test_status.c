/* Names and effects of statuses. */
#include "check.h"

int main(void) {
    CHECK(strcmp(xqkv_status_name(XQKV_STATUS_OK), "XQKV_STATUS_OK") == 0);
    CHECK(strcmp(xqkv_status_name(XQKV_STATUS_NOT_READY), "XQKV_STATUS_NOT_READY") == 0);
    CHECK(strcmp(xqkv_status_name(XQKV_STATUS_PANIC), "XQKV_STATUS_PANIC") == 0);
    CHECK(strcmp(xqkv_status_name(7), "XQKV_STATUS_UNKNOWN") == 0);
    CHECK(xqkv_status_effect(XQKV_STATUS_OVERLAP) == XQKV_EFFECT_NONE);
    CHECK(xqkv_status_effect(XQKV_STATUS_CHECKPOINT_CORRUPT) == XQKV_EFFECT_NONE);
    CHECK(xqkv_status_effect(XQKV_STATUS_PANIC) == XQKV_EFFECT_HANDLE_POISONED);
    CHECK(xqkv_status_effect(-1) == 0);
    for (int status = 1; status < 600; status++)
        CHECK(xqkv_status_effect(status) == 0 || xqkv_status_effect(status) == XQKV_EFFECT_NONE);
    return check_done();
}
