/* Handles are checked, not trusted. */
#include "fixture.h"

static void refused_everywhere(uintptr_t number) {
    xqkv_context_info info;
    xqkv_spec spec = test_spec();
    xqkv_projection *projection = NULL;
    xqkv_update *update = NULL;
    xqkv_forward call;
    xqkv_context *context = (xqkv_context *)number; /* NOLINT: a number is what a handle is */
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_context_get_info(context, &info, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_context_destroy(context, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_projection_create(context, &spec, NULL, &projection, &error));
    projection = (xqkv_projection *)number;
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_projection_forward(projection, &call, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_projection_destroy(projection, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_update_begin(projection, &update, &error));
    update = (xqkv_update *)number;
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_commit(update, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_abandon(update, &error));
}

static void foreign_and_random_numbers_are_refused(void) {
    void *memory = malloc(64);
    uint64_t random = 88172645463325252u;
    refused_everywhere((uintptr_t)memory);
    refused_everywhere((uintptr_t)memory | 1);
    refused_everywhere(1);
    refused_everywhere(UINTPTR_MAX);
    for (int count = 0; count < 2000; count++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        refused_everywhere((uintptr_t)random | 1);
    }
    free(memory);
}

static void stale_truncated_and_other_kinds_are_refused(void) {
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = test_projection(context, NULL);
    xqkv_context_info info;
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK(((uintptr_t)context & 1) == 1);
    refused_everywhere((uintptr_t)context & UINT32_MAX);
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_context_get_info((const xqkv_context *)projection, &info, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_projection_destroy((xqkv_projection *)context, &error));
    for (uintptr_t kind = 0; kind < 256; kind += 2)
        if ((((uintptr_t)context ^ kind) & 0xff) != ((uintptr_t)context & 0xff)) refused_everywhere((uintptr_t)context ^ kind);
    CHECK(xqkv_handle_count() == 2);
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    refused_everywhere((uintptr_t)context);
    refused_everywhere((uintptr_t)projection);
}

static void a_slot_used_again_does_not_revive_an_old_handle(void) {
    xqkv_context *old = test_context(1);
    CHECK_OK(xqkv_context_destroy(old, &error));
    for (int count = 0; count < 300; count++) {
        xqkv_context *fresh = test_context(1);
        CHECK(fresh != old);
        CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_context_destroy(old, &error));
        CHECK_OK(xqkv_context_destroy(fresh, &error));
    }
}

static void the_count_follows_every_handle(void) {
    xqkv_context *contexts[600];
    for (int count = 0; count < 600; count++) contexts[count] = test_context(1);
    CHECK(xqkv_handle_count() == 600);
    for (int count = 0; count < 600; count++) CHECK_OK(xqkv_context_destroy(contexts[count], &error));
    CHECK(xqkv_handle_count() == 0);
}

int main(void) {
    foreign_and_random_numbers_are_refused();
    stale_truncated_and_other_kinds_are_refused();
    a_slot_used_again_does_not_revive_an_old_handle();
    the_count_follows_every_handle();
    return check_done();
}
