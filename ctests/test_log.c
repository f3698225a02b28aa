/* The log callback gets what matters enough, and nothing is printed without one. */
#include "check.h"

typedef struct {
    int lines, most;
    char text[512];
} journal;

static void keep(int32_t level, const char *message, void *user) {
    journal *kept = user;
    kept->lines++;
    kept->most = level > kept->most ? level : kept->most;
    snprintf(kept->text, sizeof kept->text, "%s", message);
}

static journal logged(int level) {
    journal kept = {0, 0, ""};
    xqkv_context_options options;
    xqkv_context *context = NULL;
    CHECK_OK(xqkv_context_options_init(&options, sizeof options));
    options.log = keep, options.log_user = &kept, options.log_level = level, options.thread_count = 2;
    options.backend = XQKV_BACKEND_HOST;
    CHECK_OK(xqkv_context_create(&options, &context, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    return kept;
}

int main(void) {
    journal info = logged(XQKV_LOG_LEVEL_INFO);
    CHECK(info.lines == 1 && info.most == XQKV_LOG_LEVEL_INFO);
    CHECK(strstr(info.text, "host backend, 2 threads") != NULL);
    CHECK(logged(0).lines == 0);
    CHECK(logged(XQKV_LOG_LEVEL_ERROR).lines == 0);
    CHECK(logged(XQKV_LOG_LEVEL_DEBUG).lines >= 1);
    return check_done();
}
