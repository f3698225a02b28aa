/* Rust's compiler calls these by the names that newer runtimes have; gcc's intercepts the plain ones, and sees the same
   accesses through them. */
#include <string.h>

void *__tsan_memcpy(void *target, const void *source, size_t bytes);
void *__tsan_memmove(void *target, const void *source, size_t bytes);
void *__tsan_memset(void *target, int byte, size_t bytes);

void *__tsan_memcpy(void *target, const void *source, size_t bytes) { return memcpy(target, source, bytes); }
void *__tsan_memmove(void *target, const void *source, size_t bytes) { return memmove(target, source, bytes); }
void *__tsan_memset(void *target, int byte, size_t bytes) { return memset(target, byte, bytes); }
