/* The table of element types. */
#include "check.h"

int main(void) {
    CHECK(xqkv_dtype_bytes(XQKV_DTYPE_F32) == 4);
    CHECK(xqkv_dtype_bytes(XQKV_DTYPE_F16) == 2);
    CHECK(xqkv_dtype_bytes(XQKV_DTYPE_BF16) == 2);
    CHECK(xqkv_dtype_bytes(0) == 0);
    CHECK(xqkv_dtype_bytes(4) == 0);
    CHECK(strcmp(xqkv_dtype_name(XQKV_DTYPE_BF16), "XQKV_DTYPE_BF16") == 0);
    CHECK(xqkv_dtype_name(0) == NULL);
    return check_done();
}
