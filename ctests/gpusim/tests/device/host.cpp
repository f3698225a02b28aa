// The kernels' source for the device, compiled for the host: what CUDA has beyond C++ stands here.
// A block's threads are contexts that take turns, so that the order of the turns can be chosen; its
// shared memory is static, since one block runs at a time.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(count)

using std::min;

namespace {

struct Index {
    unsigned int x, y;
};

Index threadIdx, blockIdx, blockDim, gridDim;

// Counts who has arrived; the last one lets the others go on.
struct Barrier {
    unsigned int arrived = 0, generation = 0;
};

constexpr unsigned int WARP = 32, MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 64 * 1024;

struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK_BYTES);
    bool is_over = false;
};

std::vector<Thread> threads;
unsigned int current;
ucontext_t scheduler;
Barrier block_barrier, warp_barriers[MOST_THREADS / WARP];
float exchanged[MOST_THREADS];

void wait(Barrier &barrier, unsigned int count) {
    unsigned int generation = barrier.generation;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        barrier.generation++;
    }
    while (barrier.generation == generation) {
        swapcontext(&threads[current].context, &scheduler);
    }
}

void __syncthreads() { wait(block_barrier, threads.size()); }

float __shfl_xor_sync(unsigned int, float value, int distance) {
    unsigned int self = current;
    exchanged[self] = value;
    wait(warp_barriers[self / WARP], WARP);
    float other = exchanged[self ^ distance];
    wait(warp_barriers[self / WARP], WARP);
    return other;
}

unsigned int __float_as_uint(float value) {
    unsigned int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float __uint_as_float(unsigned int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace

#include "../../../../src/backend/cuda/kernels/xqkv.cu"

namespace {

const void *parameter;
bool is_store;

void body() {
    if (is_store) {
        xqkv_store(*static_cast<const Store *>(parameter));
    } else {
        xqkv_gather_rows(*static_cast<const Gather *>(parameter));
    }
    threads[current].is_over = true;
    swapcontext(&threads[current].context, &scheduler);
}

void begin(Thread &thread) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, body, 0);
    thread.is_over = false;
}

// Gives each thread that is not over a turn, in rising or in falling order.
bool turn(bool falls) {
    bool is_any_left = false;
    unsigned int count = threads.size();
    for (unsigned int at = 0; at < count; at++) {
        current = falls ? count - 1 - at : at;
        if (!threads[current].is_over) {
            threadIdx = {current % blockDim.x, current / blockDim.x};
            swapcontext(&scheduler, &threads[current].context);
            is_any_left = true;
        }
    }
    return is_any_left;
}

} // namespace

// Runs a grid, block after block.
extern "C" void run(bool store, const void *call, const unsigned int blocks[2],
                    const unsigned int block[2], bool falls) {
    is_store = store;
    parameter = call;
    gridDim = {blocks[0], blocks[1]};
    blockDim = {block[0], block[1]};
    threads.resize(block[0] * block[1]);
    for (unsigned int at = 0; at < blocks[0] * blocks[1]; at++) {
        blockIdx = {at % blocks[0], at / blocks[0]};
        for (Thread &thread : threads) {
            begin(thread);
        }
        while (turn(falls)) {
        }
    }
}
