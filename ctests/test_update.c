/* Updates: all at once or not at all, what is left out stays, what is cleared goes. */
#include "fixture.h"
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

static xqkv_projection *projection;

static xqkv_update *begin(void) {
    xqkv_update *update = NULL;
    CHECK_OK(xqkv_update_begin(projection, &update, &error));
    return update;
}

/* The generation of a part of layer 0, or -1 if the call that needs it is not ready. */
static int generation_of(int part) {
    static outputs out;
    xqkv_forward call = test_call(&out, part == QUERY ? 2 : 0, part == QUERY ? 0 : 2);
    poison(&out);
    xqkv_status status = run_forward(projection, &call, NULL, &error);
    if (status == XQKV_STATUS_NOT_READY) return CHECK(is_poisoned(&out)), -1;
    CHECK(status == XQKV_STATUS_OK);
    for (int generation = 0; generation < 4; generation++)
        if (has_rows(&out, part, 0, 2, generation)) return generation;
    return -2;
}

static void forwards_need_what_they_run_and_name_what_is_missing(void) {
    static outputs out;
    xqkv_forward call = test_call(&out, 1, 1);
    CHECK_REFUSED(XQKV_STATUS_NOT_READY, "query weight of layer 0, query bias of layer 0, key weight of layer 0, "
                  "value weight of layer 0 and 1 more", run_forward(projection, &call, NULL, &error));
    xqkv_update *update = begin();
    CHECK_OK(put_weight(update, 0, QUERY, 0));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(QUERY) == -1);
    CHECK(strstr(error.message, "not loaded: query bias of layer 0;") != NULL);
    update = begin();
    CHECK_OK(put_bias(update, 0, QUERY));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(QUERY) == 0 && generation_of(KEY) == -1);
}

static void what_is_left_out_stays_and_abandoned_puts_vanish(void) {
    int64_t version = 0, before = 0;
    load(projection, 0);
    CHECK_OK(xqkv_projection_get_weights_version(projection, &before, &error));
    xqkv_update *update = begin(), *dropped = begin();
    CHECK_OK(put_weight(update, 0, KEY, 1));
    CHECK_OK(put_weight(dropped, 0, VALUE, 3));
    CHECK(generation_of(KEY) == 0);
    CHECK_OK(xqkv_update_abandon(dropped, &error));
    CHECK_OK(xqkv_update_commit(update, &version, &error));
    CHECK(version == before + 1);
    CHECK(generation_of(QUERY) == 0 && generation_of(KEY) == 1 && generation_of(VALUE) == 0);
}

static void two_open_updates_each_replace_their_own(void) {
    xqkv_update *one = begin(), *two = begin();
    CHECK_OK(put_weight(one, 0, QUERY, 2));
    CHECK_OK(put_weight(two, 0, VALUE, 3));
    CHECK_OK(xqkv_update_commit(two, NULL, &error));
    CHECK_OK(xqkv_update_commit(one, NULL, &error));
    CHECK(generation_of(QUERY) == 2 && generation_of(KEY) == 1 && generation_of(VALUE) == 3);
}

static void cleared_parts_go(void) {
    xqkv_update *update = begin();
    CHECK_OK(xqkv_update_clear(update, 0, XQKV_PART_KEY_VALUE, XQKV_KIND_WEIGHT, &error));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "key weight of layer 0", put_weight(update, 0, KEY, 0));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(KEY) == -1 && generation_of(QUERY) == 2);
    update = begin();
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "no key bias", xqkv_update_clear(update, 0, XQKV_PART_KEY,
                  XQKV_KIND_BIAS, &error));
    CHECK_OK(xqkv_update_abandon(update, &error));
    load(projection, 0);
}

static void puts_that_make_no_sense_are_refused(void) {
    float weight[12 * ENCODER_WIDTH] = {0};
    xqkv_tensor tensor = test_tensor(weight, 12, DECODER_WIDTH);
    xqkv_tensor bias = test_tensor(weight, 6, 1), fused = test_tensor(weight, 22, DECODER_WIDTH);
    xqkv_update *update = begin();
    CHECK_OK(put_weight(update, 0, QUERY, 1));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "query weight of layer 0", put_weight(update, 0, QUERY, 1));
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer is 2", xqkv_update_put(update, 2, XQKV_PART_QUERY,
                  XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer is -1", xqkv_update_put(update, -1, XQKV_PART_QUERY,
                  XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ENUM, "part is 0", xqkv_update_put(update, 1, 0, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ENUM, "kind is 4", xqkv_update_put(update, 1, XQKV_PART_QUERY, 4, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "norm", xqkv_update_put(update, 1, XQKV_PART_QUERY, XQKV_KIND_NORM, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "no key bias", xqkv_update_put(update, 1, XQKV_PART_KEY,
                  XQKV_KIND_BIAS, &bias, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_SHAPE, "decoder_width 5", xqkv_update_put(update, 1, XQKV_PART_QUERY_KEY_VALUE,
                  XQKV_KIND_WEIGHT, &fused, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "tensor", xqkv_update_put(update, 1, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_put(NULL, 1, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_clear(NULL, 1, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_commit(NULL, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "update", xqkv_update_begin(projection, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "projection", xqkv_update_begin(NULL, &update, &error));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(QUERY) == 1);
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_commit(update, NULL, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_HANDLE, "update", xqkv_update_abandon(update, &error));
    CHECK_OK(xqkv_update_abandon(NULL, &error));
}

static void clears_that_make_no_sense_are_refused(void) {
    xqkv_update *update = begin();
    CHECK_REFUSED(XQKV_STATUS_INVALID_ENUM, "part is 6", xqkv_update_clear(update, 0, 6, XQKV_KIND_WEIGHT, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ENUM, "kind is -1", xqkv_update_clear(update, 0, XQKV_PART_QUERY, -1, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "norm",
                  xqkv_update_clear(update, 0, XQKV_PART_QUERY, XQKV_KIND_NORM, &error));
    CHECK_REFUSED(XQKV_STATUS_LAYER_OUT_OF_RANGE, "layer is 2", xqkv_update_clear(update, 2, XQKV_PART_QUERY,
                  XQKV_KIND_WEIGHT, &error));
    CHECK_OK(put_bias(update, 0, QUERY));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "query bias of layer 0", xqkv_update_clear(update, 0, XQKV_PART_QUERY,
                  XQKV_KIND_BIAS, &error));
    CHECK_OK(xqkv_update_clear(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &error));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "query weight of layer 0", xqkv_update_clear(update, 0,
                  XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &error));
    CHECK_OK(xqkv_update_abandon(update, &error));
    CHECK(generation_of(QUERY) == 1);
}

/* Places for answers that are no places: refused before anything is done. */
static void misaligned_places_are_refused(void) {
    int64_t places[2] = {-7, -7}, version = 0;
    void *odd = (char *)places + 1;
    xqkv_update *update = begin();
    CHECK_OK(xqkv_projection_get_weights_version(projection, &version, &error));
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "weights_version is", xqkv_update_commit(update, odd, &error));
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "update is", xqkv_update_begin(projection, odd, &error));
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "weights_version is",
                  xqkv_projection_get_weights_version(projection, odd, &error));
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "tensor is",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, odd, &error));
    CHECK(places[0] == -7 && places[1] == -7);
    CHECK_OK(xqkv_update_commit(update, &places[0], &error));
    CHECK(places[0] == version + 1);
}

/* A fused part of which one half is there already is refused whole: the other half stays open. */
static void a_refused_fused_put_takes_no_half(void) {
    float zeros[10 * ENCODER_WIDTH] = {0};
    xqkv_tensor tensor = test_tensor(zeros, 10, ENCODER_WIDTH);
    xqkv_update *update = begin();
    CHECK_OK(put_weight(update, 0, VALUE, 2));
    CHECK_REFUSED(XQKV_STATUS_DUPLICATE_PART, "value weight of layer 0", xqkv_update_put(update, 0, XQKV_PART_KEY_VALUE,
                  XQKV_KIND_WEIGHT, &tensor, &error));
    CHECK_OK(put_weight(update, 0, KEY, 3));
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
    CHECK(generation_of(KEY) == 3 && generation_of(VALUE) == 2);
    load(projection, 0);
}

/* Q only, of heads that are one column wide. */
static xqkv_projection *wide_projection(const xqkv_context *context, int64_t decoder_width, int64_t heads) {
    xqkv_spec spec = test_spec();
    xqkv_projection *wide = NULL;
    spec.decoder_width = decoder_width, spec.query_heads = heads, spec.head_width = 1;
    spec.key_value_heads = 0, spec.query_bias = 0;
    CHECK_OK(xqkv_projection_create(context, &spec, NULL, &wide, &error));
    return wide;
}

/* Without memory a put and a commit are refused with nothing changed, and pass when there is some again. */
static void too_little_memory_is_a_status_and_the_update_goes_on(const xqkv_context *context) {
    enum { WIDTH = 1 << 20, HEADS = 16, MARGIN = 1 << 24 };
    const size_t bytes = (size_t)WIDTH * HEADS * sizeof(float);
    xqkv_projection *large = wide_projection(context, WIDTH, HEADS);
    xqkv_update *update = NULL;
    int64_t version = 0;
    void *zeros = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!CHECK(zeros != MAP_FAILED)) return;
    xqkv_tensor tensor = test_tensor(zeros, HEADS, WIDTH);
    CHECK_OK(xqkv_update_begin(large, &update, &error));
    allow(MARGIN);
    CHECK_REFUSED(XQKV_STATUS_OUT_OF_MEMORY, "memory",
                  xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    allow(-1);
    CHECK_OK(xqkv_update_put(update, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, &tensor, &error));
    allow(MARGIN);
    CHECK_REFUSED(XQKV_STATUS_OUT_OF_MEMORY, "memory", xqkv_update_commit(update, &version, &error));
    allow(-1);
    CHECK(version == 0);
    CHECK_OK(xqkv_update_commit(update, &version, &error));
    CHECK(version == 1);
    CHECK_OK(xqkv_projection_destroy(large, &error));
    munmap(zeros, bytes);
}

static xqkv_update *contested;
static xqkv_status committed;

static void *commit_contested(void *unused) {
    xqkv_error own;
    committed = xqkv_update_commit(contested, NULL, &own);
    return unused;
}

/* Weights that take some milliseconds to pack, abandoned so many microseconds after their commit began. One of the two
   wins, and the status tells which: a commit that is refused has committed nothing. */
static void a_commit_is_whole_or_abandoned(const xqkv_projection *large, const xqkv_tensor *tensor, long microseconds) {
    pthread_t thread;
    int64_t before = 0, after = 0;
    const struct timespec wait = {0, microseconds * 1000};
    CHECK_OK(xqkv_projection_get_weights_version(large, &before, &error));
    CHECK_OK(xqkv_update_begin(large, &contested, &error));
    CHECK_OK(xqkv_update_put(contested, 0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, tensor, &error));
    CHECK(pthread_create(&thread, NULL, commit_contested, NULL) == 0);
    nanosleep(&wait, NULL);
    xqkv_status abandoned = xqkv_update_abandon(contested, &error);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_OK(xqkv_projection_get_weights_version(large, &after, &error));
    CHECK(after == before + (committed == XQKV_STATUS_OK));
    CHECK((committed == XQKV_STATUS_OK) != (abandoned == XQKV_STATUS_OK));
}

static void an_abandon_never_overtakes_a_commit(const xqkv_context *context) {
    enum { WIDTH = 1 << 18, HEADS = 16 };
    float *zeros = calloc((size_t)WIDTH * HEADS, sizeof *zeros);
    xqkv_projection *large = wide_projection(context, WIDTH, HEADS);
    xqkv_tensor tensor = test_tensor(zeros, HEADS, WIDTH);
    for (int round = 0; round < 20; round++) a_commit_is_whole_or_abandoned(large, &tensor, round * 250);
    CHECK_OK(xqkv_projection_destroy(large, &error));
    free(zeros);
}

static void an_update_outlives_its_projection_s_handle(void) {
    xqkv_update *update = begin();
    CHECK_OK(xqkv_projection_destroy(projection, &error));
    put_all(update, 1);
    CHECK_OK(xqkv_update_commit(update, NULL, &error));
}

int main(void) {
    xqkv_context *context = test_context(1);
    int is_slow = getenv("XQKV_TEST_IS_SLOW") != NULL;
    projection = test_projection(context, NULL);
    if (!is_slow) too_little_memory_is_a_status_and_the_update_goes_on(context);
    if (!is_slow) an_abandon_never_overtakes_a_commit(context);
    CHECK_OK(xqkv_context_destroy(context, &error));
    forwards_need_what_they_run_and_name_what_is_missing();
    what_is_left_out_stays_and_abandoned_puts_vanish();
    two_open_updates_each_replace_their_own();
    cleared_parts_go();
    puts_that_make_no_sense_are_refused();
    clears_that_make_no_sense_are_refused();
    misaligned_places_are_refused();
    a_refused_fused_put_takes_no_half();
    an_update_outlives_its_projection_s_handle();
    return check_done();
}
