// Asks one cuBLASLt, whose path is the argument, what its functions answer that need no device: a
// line for each question. Two libraries agree if they print the same.
#include "answers.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define DEFINE(function) __typeof__(function) *lt_##function;
FUNCTIONS(DEFINE)

static void open_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
#define FIND(function) \
    lt_##function = (__typeof__(lt_##function))dlsym(library, #function); \
    if (!lt_##function) { \
        fprintf(stderr, "%s has no %s\n", path, #function); \
        exit(2); \
    }
    FUNCTIONS(FIND)
}

static void statuses(void) {
    printf("version: %zu\n", lt_cublasLtGetVersion());
    for (int status = -1; status <= 20; status++) {
        printf("status %d: %s, %s\n", status, lt_cublasLtGetStatusName(status),
               lt_cublasLtGetStatusString(status));
    }
}

// Without a driver, or without a context in the simulator, there is no handle to be had.
static void handles(void) {
    cublasLtHandle_t handle = (cublasLtHandle_t)&handle;
    printf("handle without a context: %d", lt_cublasLtCreate(&handle));
    printf(", %s\n", handle ? "not written" : "NULL");
    printf("handle to NULL: %d\n", lt_cublasLtCreate(NULL));
    printf("destroying no handle: %d\n", lt_cublasLtDestroy(NULL));
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: answers LIBRARY\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_library(arguments[1]);
    statuses();
    handles();
    ask_descriptors();
    return 0;
}
