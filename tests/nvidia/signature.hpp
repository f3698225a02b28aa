// Whether a function of NVIDIA's headers takes arguments of given sizes.
#include <cublasLt.h>
#include <cuda.h>
#include <initializer_list>
#include <type_traits>

// Bytes of an argument, and of what it points to; 0 where that has no size or is not known.
struct argument {
    unsigned long size;
    unsigned long target;
};

template <class T, class = void> struct target {
    static constexpr unsigned long size = 0;
};

template <class T> struct target<T *, std::enable_if_t<std::is_object_v<T> && (sizeof(T) > 0)>> {
    static constexpr unsigned long size = sizeof(T);
};

template <class Result, class... Arguments>
constexpr bool takes(Result (*)(Arguments...), std::initializer_list<argument> expected) {
    constexpr argument actual[] = {{sizeof(Arguments), target<Arguments>::size}..., {0, 0}};
    if (expected.size() != sizeof...(Arguments)) {
        return false;
    }
    const argument *next = actual;
    for (argument one : expected) {
        bool is_target = one.target == 0 || next->target == 0 || one.target == next->target;
        if (one.size != next->size || !is_target) {
            return false;
        }
        next++;
    }
    return true;
}
