/* What a process gets from the NCCL that its environment names: the arguments are as loading.c's. */
#include "../check.h"

int main(int count, char **arguments) {
    static const xqkv_unique_id zeros;
    xqkv_unique_id id = zeros;
    if (count != 3) return EXIT_FAILURE;
    xqkv_status status = xqkv_unique_id_create(&id, &error);
    snprintf(check_detail, sizeof check_detail, "%s", xqkv_status_name(status));
    CHECK(strcmp(xqkv_status_name(status), arguments[1]) == 0 && strstr(error.message, arguments[2]) != NULL);
    CHECK(status == XQKV_STATUS_OK || xqkv_status_effect(status) == XQKV_EFFECT_NONE);
    CHECK((memcmp(&id, &zeros, sizeof id) != 0) == (status == XQKV_STATUS_OK));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "unique_id is NULL", xqkv_unique_id_create(NULL, &error));
    return check_done();
}
