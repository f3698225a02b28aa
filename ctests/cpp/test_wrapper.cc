// The wrapper: the three calls, ownership, results, and no allocation of its own. Without exceptions too.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <xqkv.hpp>

int second_unit();

static int failures, allocations;

#define CHECK(condition) \
    ((condition) ? void() : (std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition), void(failures++)))

void *operator new(std::size_t bytes) {
    allocations++;
    if (void *memory = std::malloc(bytes)) return memory;
    std::abort();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

template <class T>
constexpr bool owns_alone() {
    return std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
           !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
}
static_assert(owns_alone<xqkv::context>() && owns_alone<xqkv::projection>() && owns_alone<xqkv::update>());
static_assert(owns_alone<xqkv::plan>());
static_assert(xqkv::dtype_of<const xqkv::bfloat16>() == XQKV_DTYPE_BF16 && xqkv::dtype_of<float>() == XQKV_DTYPE_F32);

static const float identity[] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
static const float input[] = {1, 2, 3, 4, 5, 6, 7, 8};

static xqkv_spec small() {
    xqkv_spec spec = xqkv::spec();
    spec.weight_dtype = XQKV_DTYPE_F32, spec.decoder_width = spec.encoder_width = 4;
    spec.query_heads = spec.key_value_heads = spec.head_width = 2;
    return spec;
}

static xqkv::projection ready() {
    auto context = xqkv::context::try_create();
    auto projection = xqkv::projection::try_create(*context, small());
    auto update = projection->try_begin();
    for (xqkv_part part : {XQKV_PART_QUERY, XQKV_PART_KEY, XQKV_PART_VALUE})
        CHECK(update->try_put(0, part, XQKV_KIND_WEIGHT, xqkv::tensor(identity, 4, 4)));
    auto version = update->try_commit();
    CHECK(version && *version == 1 && update->get() == nullptr);
    return std::move(*projection);
}

static void the_three_calls() {
    float query[8], key[16], value[16];
    xqkv::projection projection = ready();
    xqkv_forward call = xqkv::forward();
    call.decoder = xqkv::rows(input, 2), call.query = xqkv::view(query);
    auto decode = projection.try_forward(call);
    CHECK(decode && decode->multiply_adds == 2 * 16 && std::memcmp(query, input, sizeof query) == 0);
    call.encoder = xqkv::rows(input, 2), call.key = xqkv::view(key, 8), call.value = xqkv::view(key + 4, 8);
    CHECK(projection.try_forward(call)->multiply_adds == 6 * 16);
    CHECK(std::memcmp(key, input, 16) == 0 && std::memcmp(key + 4, input, 16) == 0 && key[8] == 5);
    call.decoder = xqkv_input{}, call.key = xqkv::view(key), call.value = xqkv::view(value);
    auto fill = projection.try_forward(call);
    CHECK(fill && fill->multiply_adds == 4 * 16 && std::memcmp(value, input, sizeof input) == 0);
}

static void sixteen_bit_elements() {
    const xqkv::bfloat16 rows[] = {xqkv::bfloat16{0x3f80}, xqkv::bfloat16{0x4000}, xqkv::bfloat16{0}, xqkv::bfloat16{0xbf80}};
    xqkv::half query[4];
    xqkv_forward call = xqkv::forward();
    call.decoder = xqkv::rows(rows, 1), call.query = xqkv::view(query);
    CHECK(ready().try_forward(call));
    CHECK(query[0] == xqkv::half{0x3c00} && query[1] == xqkv::half{0x4000} && query[3] == xqkv::half{0xbc00});
}

static void failures_tell_why() {
    xqkv_spec spec = small();
    spec.head_width = -1;
    auto context = xqkv::context::try_create();
    auto refused = xqkv::projection::try_create(*context, spec);
    CHECK(!refused && refused.status() == XQKV_STATUS_INVALID_ARGUMENT);
    CHECK(std::strstr(refused.message(), "head_width is -1") != nullptr);
    CHECK(xqkv::try_read_spec(xqkv::checkpoint("/nonexistent")).status() == XQKV_STATUS_CHECKPOINT_NOT_FOUND);
    CHECK(!xqkv::projection().try_forward(xqkv::forward()));
}

static void moves_leave_nothing_behind() {
    xqkv::projection one = ready(), two;
    CHECK(xqkv_handle_count() == 1);
    two = std::move(one);
    CHECK(one.get() == nullptr && two.get() != nullptr && xqkv_handle_count() == 1);
    xqkv::projection &self = two;
    two = std::move(self);
    CHECK(two.get() != nullptr);
    two = ready();
    CHECK(xqkv_handle_count() == 1);
    auto dropped = two.try_begin();
    CHECK(dropped && xqkv_handle_count() == 2);
}

static void a_plan_holds_calls_to_its_shape() {
    float query[8];
    xqkv::projection projection = ready();
    xqkv_forward call = xqkv::forward();
    call.decoder = xqkv::rows(input, 1), call.query = xqkv::view(query);
    auto plan = projection.try_plan(call);
    CHECK(plan && plan->get() != nullptr && plan->try_workspace()->minimum_bytes == 0);
    call.plan = plan->get();
    CHECK(projection.try_forward(call) && std::memcmp(query, input, 16) == 0);
    call.decoder.rows = 2;
    CHECK(projection.try_forward(call).status() == XQKV_STATUS_PLAN_MISMATCH);
    xqkv_plan_options odd = xqkv::plan_options();
    odd.alignment_bytes = 3;
    CHECK(projection.try_plan(call, odd).status() == XQKV_STATUS_INVALID_ARGUMENT);
}

static void a_commit_tells_its_bytes_and_a_host_context_reclaims_nothing() {
    auto context = xqkv::context::try_create();
    auto projection = xqkv::projection::try_create(*context, small());
    auto update = projection->try_begin();
    CHECK(*update->try_commit_bytes() == 0);
    CHECK(update->try_put(0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, xqkv::tensor(identity, 4, 4)));
    CHECK(*update->try_commit_bytes() >= 64);
    auto waiting = context->try_reclaim();
    CHECK(waiting && *waiting == 0);
    CHECK(context->try_reclaim(nullptr, -1).status() == XQKV_STATUS_INVALID_ARGUMENT);
}

static bool equal(const float *written, std::initializer_list<float> expected) {
    return std::equal(expected.begin(), expected.end(), written, [](float one, float other) {
        return one == other || (std::isnan(one) && std::isnan(other));
    });
}

/// K in pages of two rows with a gap between them, head by head, by slots; V as sums of rows that a list names.
static void pages_slots_sums_and_row_lists() {
    const std::int64_t slots[] = {3, -1, 0}, rows[] = {1, 0, 1};
    const float hole = NAN;
    float key[17], value[12] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    alignas(256) char memory[256];
    std::fill(key, key + 17, hole);
    xqkv::projection projection = ready();
    xqkv_forward call = xqkv::forward();
    call.encoder = xqkv::with_row_list(xqkv::rows(input, 2), rows, 3);
    call.key = xqkv::with_slots(xqkv::with_groups(xqkv::view(key, 2, 4), 2, 9), slots, 4);
    call.value = xqkv::with_accumulate(xqkv::view(value));
    CHECK(projection.try_forward(call).status() == XQKV_STATUS_WORKSPACE_TOO_SMALL);
    int before = allocations;
    auto sizes = projection.try_workspace(call);
    CHECK(sizes && sizes->minimum_bytes > 0 && sizes->minimum_bytes <= 256);
    call.workspace = memory, call.workspace_bytes = sizes->minimum_bytes;
    CHECK(projection.try_forward(call) && allocations == before);
    CHECK(equal(key, {5, 6, hole, hole, 7, 8, hole, hole, hole, hole, hole, 5, 6, hole, hole, 7, 8}));
    CHECK(equal(value, {6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9}));
    call.encoder.rows = 0;
    CHECK(projection.try_workspace(call).status() == XQKV_STATUS_INVALID_ARGUMENT);
}

/// Each layer in memory of its own: K packed, V transposed.
static void each_layer_has_its_pointer() {
    float keys[2][8], values[2][8];
    void *const key_data[] = {keys[0], keys[1]}, *const value_data[] = {values[1], values[0]};
    xqkv_spec spec = small();
    spec.layer_count = 2;
    auto context = xqkv::context::try_create();
    auto projection = xqkv::projection::try_create(*context, spec);
    auto update = projection->try_begin();
    const float twice[] = {2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2};
    for (xqkv_part part : {XQKV_PART_KEY, XQKV_PART_VALUE}) {
        CHECK(update->try_put(0, part, XQKV_KIND_WEIGHT, xqkv::tensor(identity, 4, 4)));
        CHECK(update->try_put(1, part, XQKV_KIND_WEIGHT, xqkv::tensor(twice, 4, 4)));
    }
    CHECK(update->try_commit());
    xqkv_forward call = xqkv::forward();
    call.layer_count = 2, call.encoder = xqkv::rows(input, 2);
    call.key = xqkv::layers<float>(key_data), call.value = xqkv::layers<float>(value_data, 1, 4, 2);
    CHECK(projection->try_forward(call));
    CHECK(equal(keys[0], {1, 2, 3, 4, 5, 6, 7, 8}) && equal(keys[1], {2, 4, 6, 8, 10, 12, 14, 16}));
    CHECK(equal(values[1], {1, 5, 2, 6, 3, 7, 4, 8}) && equal(values[0], {2, 10, 4, 12, 6, 14, 8, 16}));
}

static void a_callable_lends_its_threads() {
    static float rows[1024 * 64], query[1024 * 32];
    int tasks = 0;
    auto in_order = [&tasks](std::int64_t count, auto task) {
        for (std::int64_t index = 0; index < count; index++) task(index), tasks++;
    };
    xqkv_context_options options = xqkv::context_options();
    options.backend = XQKV_BACKEND_HOST;
    options.thread_count = 3;
    xqkv::lend_threads(options, in_order);
    auto context = xqkv::context::try_create(options);
    xqkv_spec wide = small();
    wide.decoder_width = 64, wide.query_heads = 16, wide.key_value_heads = 16;
    auto projection = xqkv::projection::try_create(*context, wide);
    auto update = projection->try_begin();
    CHECK(update->try_put(0, XQKV_PART_QUERY, XQKV_KIND_WEIGHT, xqkv::tensor(rows, 32, 64)) && update->try_commit());
    xqkv_forward call = xqkv::forward();
    call.decoder = xqkv::rows(rows, 1024), call.query = xqkv::view(query);
    CHECK(projection->try_forward(call) && tasks == 3);
}

static void nothing_is_allocated() {
    float query[8];
    xqkv::projection projection = ready();
    xqkv_forward call = xqkv::forward();
    call.decoder = xqkv::rows(input, 2), call.query = xqkv::view(query);
    int before = allocations;
    CHECK(projection.try_forward(call));
    call.layer = 7;
    CHECK(!projection.try_forward(call));
    CHECK(allocations == before);
}

#ifdef XQKV_EXCEPTIONS
static void exceptions_carry_the_message() {
    bool caught = false;
    try {
        ready().forward(xqkv::forward());
    } catch (const xqkv::error &error) {
        caught = error.status() == XQKV_STATUS_INVALID_ARGUMENT && error.effect() == XQKV_EFFECT_NONE &&
                 std::strstr(error.what(), "both absent") != nullptr;
    }
    CHECK(caught);
}
#endif

int main() {
    the_three_calls();
    sixteen_bit_elements();
    failures_tell_why();
    moves_leave_nothing_behind();
    a_plan_holds_calls_to_its_shape();
    a_commit_tells_its_bytes_and_a_host_context_reclaims_nothing();
    pages_slots_sums_and_row_lists();
    each_layer_has_its_pointer();
    a_callable_lends_its_threads();
    nothing_is_allocated();
#ifdef XQKV_EXCEPTIONS
    exceptions_carry_the_message();
#endif
    CHECK(second_unit() == 2);
    CHECK(xqkv_handle_count() == 0);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
