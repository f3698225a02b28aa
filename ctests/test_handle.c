/* Handles are checked, not trusted. */
#include "fixture.h"
#include <pthread.h>

static void refused_as_context(uintptr_t number) {
    xqkv_context_info info;
    xqkv_spec spec = test_spec();
    xqkv_projection *projection = NULL;
    xqkv_context *context = (xqkv_context *)number; /* NOLINT: a number is what a handle is */
    CHECK_OK(xqkv_context_info_init(&info, sizeof info));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_context_get_info(context, &info, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_context_destroy(context, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "context", xqkv_projection_create(context, &spec, NULL, &projection, &error));
    CHECK(projection == NULL && info.thread_count == 0);
}

static void refused_as_projection(uintptr_t number) {
    xqkv_shard shard;
    xqkv_forward call;
    xqkv_update *update = NULL;
    int64_t version = -1;
    xqkv_projection *projection = (xqkv_projection *)number;
    CHECK_OK(xqkv_forward_init(&call, sizeof call));
    CHECK_OK(xqkv_shard_init(&shard, sizeof shard));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", run_forward(projection, &call, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_projection_get_shard(projection, &shard, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection",
                  xqkv_projection_get_weights_version(projection, &version, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_projection_destroy(projection, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "projection", xqkv_update_begin(projection, &update, &error));
    CHECK(update == NULL && version == -1 && shard.layer_count == 0);
}

static void refused_as_update(uintptr_t number) {
    xqkv_checkpoint checkpoint;
    int64_t version = -1;
    xqkv_update *update = (xqkv_update *)number;
    CHECK_OK(xqkv_checkpoint_init(&checkpoint, sizeof checkpoint));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", put_weight(update, 0, QUERY, 0));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update",
                  xqkv_update_clear(update, 0, XQKV_PART_KEY, XQKV_KIND_WEIGHT, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_read_checkpoint(update, &checkpoint, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_commit(update, &version, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_abandon(update, &error));
    CHECK(version == -1);
}

static void refused_everywhere(uintptr_t number) {
    refused_as_context(number);
    refused_as_projection(number);
    refused_as_update(number);
}

static void foreign_and_random_numbers_are_refused(void) {
    void *memory = malloc(64);
    uint64_t random = 88172645463325252u;
    refused_everywhere((uintptr_t)memory);
    refused_everywhere((uintptr_t)memory | 1);
    refused_everywhere(1);
    refused_everywhere(UINTPTR_MAX);
    for (int count = 0; count < 500; count++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        refused_everywhere((uintptr_t)random | 1);
    }
    free(memory);
}

static void other_kinds_truncated_and_destroyed_ones_are_refused(void) {
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = test_projection(context, NULL);
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    uintptr_t handles[] = {(uintptr_t)context, (uintptr_t)projection, (uintptr_t)update};
    void (*refusals[])(uintptr_t) = {refused_as_context, refused_as_projection, refused_as_update};
    for (int handle = 0; handle < 3; handle++) {
        CHECK((handles[handle] & 1) == 1);
        for (int other = 1; other < 3; other++) refusals[(handle + other) % 3](handles[handle]);
        for (uintptr_t kind = 2; kind < 256; kind += 2) refused_everywhere(handles[handle] ^ kind);
        refused_everywhere(handles[handle] & UINT32_MAX);
        refused_everywhere(handles[handle] ^ (UINT64_C(1) << 63));
        refused_everywhere(handles[handle] + (1 << 8));
    }
    CHECK(xqkv_handle_count() == 3);
    CHECK_OK(put_weight(update, 0, QUERY, 0));
    CHECK_OK(xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    for (int handle = 0; handle < 3; handle++) refused_everywhere(handles[handle]);
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

/* Updates, since they are the smallest; one destroyed makes room for one more. */
static void a_full_table_is_a_status_and_one_destroyed_makes_room(void) {
    enum { MOST = 1 << 17 };
    static xqkv_update *updates[MOST];
    xqkv_context *context = test_context(1);
    xqkv_projection *projection = test_projection(context, NULL);
    int count = 0;
    while (count < MOST && xqkv_update_begin(projection, &updates[count], &error) == XQKV_STATUS_OK) count++;
    if (!CHECK(count > 1 && count < MOST)) return;
    CHECK_REFUSED(XQKV_STATUS_TOO_MANY_HANDLES, "handles are alive",
                  xqkv_update_begin(projection, &updates[count], &error));
    CHECK(updates[count] == NULL && xqkv_handle_count() == count + 2);
    CHECK_OK(xqkv_update_abandon(updates[count - 1], &error));
    CHECK_OK(xqkv_update_begin(projection, &updates[count - 1], &error));
    for (int at = 0; at < count; at++) CHECK_OK(xqkv_update_abandon(updates[at], &error));
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    CHECK_OK(xqkv_context_destroy(context, &error));
}

enum { THREADS = 4, ROUNDS = 2000 };

/* Makes and destroys, and asks after the last one: its slot may by then be another thread's, its handle never. */
static void *make_and_destroy(void *refused) {
    int64_t version;
    xqkv_error own;
    xqkv_context *context = NULL;
    xqkv_projection *projection = NULL;
    xqkv_spec spec;
    int good = xqkv_context_create(NULL, &context, &own) == XQKV_STATUS_OK;
    xqkv_spec_init(&spec, sizeof spec);
    spec.weight_dtype = XQKV_DTYPE_F32, spec.decoder_width = spec.query_heads = spec.head_width = 1;
    for (int round = 0; round < ROUNDS; round++) {
        good &= xqkv_projection_create(context, &spec, NULL, &projection, &own) == XQKV_STATUS_OK;
        good &= xqkv_projection_get_weights_version(projection, &version, &own) == XQKV_STATUS_OK && version == 0;
        good &= xqkv_projection_destroy(projection, &own) == XQKV_STATUS_OK;
        good &= xqkv_projection_get_weights_version(projection, &version, &own) == XQKV_STATUS_INVALID_HANDLE;
        good &= xqkv_projection_destroy(projection, &own) == XQKV_STATUS_INVALID_HANDLE;
    }
    *(int *)refused = !good || xqkv_context_destroy(context, &own) != XQKV_STATUS_OK;
    return NULL;
}

static void threads_never_get_each_other_s_handles(void) {
    pthread_t threads[THREADS];
    int failed[THREADS];
    for (int at = 0; at < THREADS; at++) CHECK(pthread_create(&threads[at], NULL, make_and_destroy, &failed[at]) == 0);
    for (int at = 0; at < THREADS; at++) CHECK(pthread_join(threads[at], NULL) == 0 && !failed[at]);
}

int main(void) {
    foreign_and_random_numbers_are_refused();
    other_kinds_truncated_and_destroyed_ones_are_refused();
    a_slot_used_again_does_not_revive_an_old_handle();
    the_count_follows_every_handle();
    if (getenv("XQKV_TEST_IS_SLOW") == NULL) a_full_table_is_a_status_and_one_destroyed_makes_room();
    threads_never_get_each_other_s_handles();
    return check_done();
}
