/* Which backend a process gets from the libraries that its environment names. The first argument is what CUDA has to
   answer, the second a word of its message. Linked to no simulator. */
#include "../check.h"

static xqkv_status create(int backend, xqkv_context **context) {
    xqkv_context_options options;
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.backend = backend;
    return xqkv_context_create(&options, context, &error);
}

static int backend_of(const xqkv_context *context) {
    xqkv_context_info info;
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_OK(xqkv_context_get_info(context, &info, &error));
    return info.backend;
}

int main(int count, char **arguments) {
    xqkv_context *asked = NULL, *automatic = NULL;
    if (count != 3) return EXIT_FAILURE;
    xqkv_status status = create(XQKV_BACKEND_CUDA, &asked);
    snprintf(check_detail, sizeof check_detail, "%s", xqkv_status_name(status));
    CHECK(strcmp(xqkv_status_name(status), arguments[1]) == 0 && strstr(error.message, arguments[2]) != NULL);
    CHECK(status == XQKV_STATUS_OK || xqkv_status_effect(status) == XQKV_EFFECT_NONE);
    CHECK_OK(create(XQKV_BACKEND_AUTO, &automatic));
    CHECK(backend_of(automatic) == (status == XQKV_STATUS_OK ? XQKV_BACKEND_CUDA : XQKV_BACKEND_HOST));
    CHECK_OK(xqkv_context_destroy(automatic, &error));
    CHECK_OK(xqkv_context_destroy(asked, &error));
    return check_done();
}
