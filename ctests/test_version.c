/* The header's version and the library's are one. */
#include "check.h"

int main(void) {
    char text[32];
    CHECK(xqkv_version_number() == XQKV_VERSION_NUMBER);
    CHECK(strcmp(xqkv_version_string(), XQKV_VERSION_STRING) == 0);
    CHECK(xqkv_version_abi() == XQKV_VERSION_ABI);
    snprintf(text, sizeof text, "%d.%d.%d", XQKV_VERSION_MAJOR, XQKV_VERSION_MINOR, XQKV_VERSION_PATCH);
    CHECK(strcmp(xqkv_version_string(), text) == 0);
    return check_done();
}
