// xqkv.hpp: the C library for C++17, header-only.
//
// Each handle has a move-only owner; plain structs come ready from their makers; every operation exists twice, as one that
// throws xqkv::error and as one that returns a result (try_...), of which only the latter remain without exceptions. The
// wrapper allocates nothing of its own. What each call does, for which threads, and what it answers is said in xqkv.h.
//
// Pages of 16 rows, head by head, filled by slots from the rows that a list names:
//
//     call.encoder = xqkv::with_row_list(xqkv::rows(hidden, buffer_rows), row_list, row_count);
//     call.key = xqkv::with_slots(xqkv::with_groups(xqkv::view(pages, width, 16 * width), 16), slots, page_count * 16);
#ifndef XQKV_HPP
#define XQKV_HPP

#include <xqkv.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#if !defined(XQKV_NO_EXCEPTIONS) && defined(__cpp_exceptions)
#define XQKV_EXCEPTIONS 1
#include <exception>
#endif

namespace xqkv {

/// What went wrong: the library's own struct, by value.
using failure = xqkv_error;

#ifdef XQKV_EXCEPTIONS
/// A failed call as an exception.
class error : public std::exception {
public:
    explicit error(const failure &reported) noexcept : reported_(reported) {}
    const char *what() const noexcept override { return reported_.message; }
    xqkv_status status() const noexcept { return static_cast<xqkv_status>(reported_.status); }
    xqkv_effect effect() const noexcept { return static_cast<xqkv_effect>(xqkv_status_effect(reported_.status)); }

private:
    failure reported_;
};
#endif

/// A value, or why there is none. Converts to true when there is one.
template <class T>
class [[nodiscard]] result {
public:
    result(T &&value) noexcept : value_(std::move(value)) { reported_.status = XQKV_STATUS_OK; }
    result(const failure &reported) noexcept : reported_(reported) {}
    explicit operator bool() const noexcept { return reported_.status == XQKV_STATUS_OK; }
    xqkv_status status() const noexcept { return static_cast<xqkv_status>(reported_.status); }
    const char *message() const noexcept { return reported_.message; }
    const failure &reported() const noexcept { return reported_; }
    T &operator*() noexcept { return value_; }
    T *operator->() noexcept { return &value_; }

#ifdef XQKV_EXCEPTIONS
    /// The value, or an exception.
    T value() && {
        if (!*this) throw error(reported_);
        return std::move(value_);
    }
#endif

private:
    T value_{};
    failure reported_;
};

/// The value of a call that has none.
struct nothing {};

namespace detail {

/// Makes a call that takes an error last, and gives a value if it succeeds.
template <class T, class Call>
result<T> attempt(T &&value, Call &&call) noexcept {
    failure reported;
    if (call(&reported) != XQKV_STATUS_OK) return reported;
    return std::move(value);
}

/// A plain struct as its _init function leaves it.
template <class T>
T made(xqkv_status (*init)(T *, std::size_t)) noexcept {
    T plain;
    init(&plain, sizeof plain);
    return plain;
}

/// Owns a handle: moves, never copies, and destroys what it has.
template <class T, xqkv_status (*Destroy)(T *, xqkv_error *)>
class owner {
public:
    owner() noexcept = default;
    explicit owner(T *handle) noexcept : handle_(handle) {}
    owner(owner &&other) noexcept : handle_(other.release()) {}
    owner &operator=(owner &&other) noexcept {
        owner taken(std::move(other));
        std::swap(handle_, taken.handle_);
        return *this;
    }
    owner(const owner &) = delete;
    owner &operator=(const owner &) = delete;
    ~owner() { Destroy(handle_, nullptr); }

    T *get() const noexcept { return handle_; }
    /// Gives the handle away.
    T *release() noexcept { return std::exchange(handle_, nullptr); }

private:
    T *handle_ = nullptr;
};

}  // namespace detail

inline xqkv_context_options context_options() noexcept { return detail::made(xqkv_context_options_init); }
/// Has `run(count, task)` bring threads to the host's work: it calls task(index) once for each index below count, and
/// returns when all are done. It must not throw, and is used until the context and its projections are gone.
template <class Run>
void lend_threads(xqkv_context_options &options, Run &run) noexcept {
    options.parallel_for = [](std::int64_t count, xqkv_task task, void *task_user, void *user) {
        (*static_cast<Run *>(user))(count, [=](std::int64_t index) { task(index, task_user); });
    };
    options.parallel_for_user = &run;
}

inline xqkv_spec spec() noexcept { return detail::made(xqkv_spec_init); }
inline xqkv_projection_options projection_options() noexcept { return detail::made(xqkv_projection_options_init); }
inline xqkv_shard shard() noexcept { return detail::made(xqkv_shard_init); }
inline xqkv_tensor tensor() noexcept { return detail::made(xqkv_tensor_init); }
inline xqkv_stats stats() noexcept { return detail::made(xqkv_stats_init); }
inline xqkv_plan_options plan_options() noexcept { return detail::made(xqkv_plan_options_init); }
inline xqkv_workspace workspace() noexcept { return detail::made(xqkv_workspace_init); }

/// A call of one layer, both inputs absent.
inline xqkv_forward forward(std::int64_t layer = 0) noexcept {
    xqkv_forward call = detail::made(xqkv_forward_init);
    call.layer = layer;
    return call;
}

/// A checkpoint's folder; the path must live as long as the struct is used.
inline xqkv_checkpoint checkpoint(const char *directory) noexcept {
    xqkv_checkpoint plain = detail::made(xqkv_checkpoint_init);
    plain.directory = directory;
    return plain;
}

/// 16-bit elements in their bits.
enum class half : std::uint16_t {};
enum class bfloat16 : std::uint16_t {};

/// The dtype of an element type: float, half or bfloat16.
template <class T>
constexpr std::int32_t dtype_of() noexcept {
    using element = std::remove_const_t<T>;
    constexpr bool is_half = std::is_same_v<element, half>, is_bfloat16 = std::is_same_v<element, bfloat16>;
    static_assert(is_half || is_bfloat16 || std::is_same_v<element, float>, "float, xqkv::half or xqkv::bfloat16");
    return is_half ? XQKV_DTYPE_F16 : is_bfloat16 ? XQKV_DTYPE_BF16 : XQKV_DTYPE_F32;
}

/// Rows of hidden states; a stride of 0 is packed.
template <class T>
xqkv_input rows(const T *data, std::int64_t count, std::int64_t row_stride = 0) noexcept {
    xqkv_input input{};
    input.data = data, input.rows = count, input.row_stride = row_stride, input.dtype = dtype_of<T>();
    return input;
}

/// Where results go; strides of 0 are packed.
template <class T>
xqkv_view view(T *data, std::int64_t row_stride = 0, std::int64_t head_stride = 0, std::int64_t width_stride = 0) noexcept {
    xqkv_view place{};
    place.data = data, place.dtype = dtype_of<T>();
    place.row_stride = row_stride, place.head_stride = head_stride, place.width_stride = width_stride;
    return place;
}

/// Where results go, with a base pointer for each layer of the call instead of one; the list must stay during the call.
template <class T>
xqkv_view layers(void *const *layer_data, std::int64_t row_stride = 0, std::int64_t head_stride = 0,
                 std::int64_t width_stride = 0) noexcept {
    xqkv_view place = view<T>(nullptr, row_stride, head_stride, width_stride);
    place.layer_data = layer_data;
    return place;
}

/// The same view in groups of rows: pages, or the sequences of a batch. A stride of 0 is packed.
inline xqkv_view with_groups(xqkv_view place, std::int64_t group_rows, std::int64_t group_stride = 0) noexcept {
    place.group_rows = group_rows, place.group_stride = group_stride;
    return place;
}

/// The same view with a place for each row, below slot_count; -1 leaves a row out.
inline xqkv_view with_slots(xqkv_view place, const std::int64_t *slots, std::int64_t slot_count) noexcept {
    place.slots = slots, place.slot_count = slot_count;
    return place;
}

/// The same view, added to what is there.
inline xqkv_view with_accumulate(xqkv_view place) noexcept {
    place.accumulate = 1;
    return place;
}

/// Those rows of an input that a list names, in its order.
inline xqkv_input with_row_list(xqkv_input input, const std::int64_t *row_list, std::int64_t count) noexcept {
    input.buffer_rows = input.rows, input.rows = count, input.row_list = row_list;
    return input;
}

/// A weight [rows, columns] of the uncut layer; a bias has 1 column.
template <class T>
xqkv_tensor tensor(const T *data, std::int64_t rows, std::int64_t columns) noexcept {
    xqkv_tensor plain = tensor();
    plain.data = data, plain.dtype = dtype_of<T>(), plain.rows = rows, plain.columns = columns;
    return plain;
}

/// The spec of a checkpoint's configuration.
inline result<xqkv_spec> try_read_spec(const xqkv_checkpoint &source) noexcept {
    xqkv_spec read = spec();
    failure reported;
    if (xqkv_spec_read_checkpoint(&read, &source, &reported) != XQKV_STATUS_OK) return reported;
    return read;
}

/// One backend on one device. Any thread; projections outlive it.
class context : public detail::owner<xqkv_context, xqkv_context_destroy> {
public:
    using owner::owner;
    static result<context> try_create(const xqkv_context_options &options = context_options()) noexcept {
        xqkv_context *handle = nullptr;
        failure reported;
        if (xqkv_context_create(&options, &handle, &reported) != XQKV_STATUS_OK) return reported;
        return context(handle);
    }
    /// Frees retired device memory behind the work that is now on the streams, or at once without any; gives how many
    /// bytes still wait.
    result<std::int64_t> try_reclaim(void *const *streams = nullptr, std::int64_t stream_count = 0) const noexcept {
        std::int64_t waiting = 0;
        failure reported;
        if (xqkv_context_reclaim(get(), streams, stream_count, &waiting, &reported) != XQKV_STATUS_OK) return reported;
        return waiting;
    }
};

/// A weight transaction: put or read, then commit; destroying it abandons what was not committed. One thread at a time.
class update : public detail::owner<xqkv_update, xqkv_update_abandon> {
public:
    using owner::owner;
    result<nothing> try_put(std::int64_t layer, xqkv_part part, xqkv_kind kind, const xqkv_tensor &source) noexcept {
        auto put = [&](failure *out) { return xqkv_update_put(get(), layer, part, kind, &source, out); };
        return detail::attempt(nothing{}, put);
    }
    result<nothing> try_clear(std::int64_t layer, xqkv_part part, xqkv_kind kind) noexcept {
        auto clear = [&](failure *out) { return xqkv_update_clear(get(), layer, part, kind, out); };
        return detail::attempt(nothing{}, clear);
    }
    result<nothing> try_read(const xqkv_checkpoint &source) noexcept {
        auto read = [&](failure *out) { return xqkv_update_read_checkpoint(get(), &source, out); };
        return detail::attempt(nothing{}, read);
    }
    /// Bytes that a commit of the update as it is would take from the backend's memory.
    result<std::int64_t> try_commit_bytes() const noexcept {
        std::int64_t bytes = 0;
        failure reported;
        if (xqkv_update_get_commit_bytes(get(), &bytes, &reported) != XQKV_STATUS_OK) return reported;
        return bytes;
    }
    /// Gives the version of the weights, and lets go of the handle.
    result<std::int64_t> try_commit() noexcept {
        std::int64_t version = 0;
        failure reported;
        if (xqkv_update_commit(get(), &version, &reported) != XQKV_STATUS_OK) return reported;
        release();
        return version;
    }
};

/// One shape of call, prepared; put get() into the call's `plan`. Any thread, several at once.
class plan : public detail::owner<xqkv_plan, xqkv_plan_destroy> {
public:
    using owner::owner;
    /// What workspace the plan's calls take.
    result<xqkv_workspace> try_workspace() const noexcept {
        xqkv_workspace sizes = workspace();
        failure reported;
        if (xqkv_plan_get_workspace(get(), &sizes, &reported) != XQKV_STATUS_OK) return reported;
        return sizes;
    }
};

/// This rank's shard of Wq, Wk and Wv. Any thread, several at once.
class projection : public detail::owner<xqkv_projection, xqkv_projection_destroy> {
public:
    using owner::owner;
    static result<projection> try_create(const context &on, const xqkv_spec &of,
                                         const xqkv_projection_options &options = projection_options()) noexcept {
        xqkv_projection *handle = nullptr;
        failure reported;
        if (xqkv_projection_create(on.get(), &of, &options, &handle, &reported) != XQKV_STATUS_OK) return reported;
        return projection(handle);
    }
    result<update> try_begin() const noexcept {
        xqkv_update *handle = nullptr;
        failure reported;
        if (xqkv_update_begin(get(), &handle, &reported) != XQKV_STATUS_OK) return reported;
        return update(handle);
    }
    result<xqkv_shard> try_shard() const noexcept {
        xqkv_shard held = shard();
        failure reported;
        if (xqkv_projection_get_shard(get(), &held, &reported) != XQKV_STATUS_OK) return reported;
        return held;
    }
    /// A plan for calls like the example, with at most as many rows.
    result<plan> try_plan(const xqkv_forward &example, const xqkv_plan_options &options = plan_options()) const noexcept {
        xqkv_plan *handle = nullptr;
        failure reported;
        if (xqkv_plan_create(get(), &example, &options, &handle, &reported) != XQKV_STATUS_OK) return reported;
        return plan(handle);
    }
    /// What workspace a call takes that has no plan; the least is 0 on the host without slots.
    result<xqkv_workspace> try_workspace(const xqkv_forward &call) const noexcept {
        xqkv_plan_options options = plan_options();
        options.alignment_bytes = 1;
        auto made = try_plan(call, options);
        if (!made) return made.reported();
        return made->try_workspace();
    }
    /// Q if the call has decoder rows, K and V if it has encoder rows.
    result<xqkv_stats> try_forward(const xqkv_forward &call) const noexcept {
        xqkv_stats counted = stats();
        failure reported;
        if (xqkv_projection_forward(get(), &call, &counted, &reported) != XQKV_STATUS_OK) return reported;
        return counted;
    }

#ifdef XQKV_EXCEPTIONS
    xqkv_stats forward(const xqkv_forward &call) const { return try_forward(call).value(); }
#endif
};

#ifdef XQKV_EXCEPTIONS
inline xqkv_spec read_spec(const xqkv_checkpoint &source) { return try_read_spec(source).value(); }

/// A projection with this rank's weights of a checkpoint.
inline projection load(const context &on, const xqkv_spec &of, const xqkv_checkpoint &source,
                       const xqkv_projection_options &options = projection_options()) {
    projection loaded = projection::try_create(on, of, options).value();
    update weights = loaded.try_begin().value();
    weights.try_read(source).value();
    weights.try_commit().value();
    return loaded;
}
#endif

}  // namespace xqkv

#endif
