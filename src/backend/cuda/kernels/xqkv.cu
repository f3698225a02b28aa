// What no matmul of cuBLASLt can do: rows picked by a list, and results that go through a norm or
// to places that are not one stride apart. `cargo xtask kernels` compiles this to xqkv.ptx, without
// contraction of multiplications and additions. Nothing beyond compute capability 7.0 is used, so
// that one text serves every device: the 16-bit formats are integer arithmetic.

typedef long long int64;

// The numbers of xqkv_dtype; NONE rounds nothing.
enum Dtype : int { NONE = 0, F32 = 1, F16 = 2, BF16 = 3 };

// Structs are passed by value, and are laid out as in kernels.rs.

// staged[rows, width] = source[list[row], 0..width]
struct Gather {
    const void *source;
    const int64 *list;
    void *staged;
    int64 rows;
    int64 buffer_rows;
    int64 width;
    int64 row_stride;
    int64 element_bytes;
};

// destination[slots[first_row + row], head, lane] = staged[rows, heads, width], by strides
struct Store {
    const void *staged;
    void *destination;
    const int64 *slots;
    const float *norm_weight;
    int64 rows;
    int64 first_row;
    int64 slot_count;
    int64 heads;
    int64 width;
    int64 staged_row_stride;
    int64 row_stride;
    int64 head_stride;
    int64 width_stride;
    int64 group_rows;
    int64 group_stride;
    float scale;
    float epsilon;
    int staged_dtype;
    int dtype;
    int round_dtype;
    int accumulate;
};

// Rows and lanes of a tile, which are the threads of a warp, and the warps of a block.
enum : int { TILE = 32, WARPS = 8 };

// Where a row goes that goes nowhere; strides are not negative.
enum : int64 { NOWHERE = -1 };

// One block for a row and a part of its width. A row that the buffer does not have is NaN, in
// either 16-bit format as well.
template <typename Element>
__device__ void gather_rows(const Gather &call, Element nan) {
    const Element *source = static_cast<const Element *>(call.source);
    Element *staged = static_cast<Element *>(call.staged);
    int64 first = static_cast<int64>(blockIdx.y) * blockDim.x + threadIdx.x;
    int64 step = static_cast<int64>(gridDim.y) * blockDim.x;
    for (int64 row = blockIdx.x; row < call.rows; row += gridDim.x) {
        int64 index = call.list[row];
        bool is_there = 0 <= index && index < call.buffer_rows;
        for (int64 lane = first; lane < call.width; lane += step) {
            staged[row * call.width + lane] =
                is_there ? source[index * call.row_stride + lane] : nan;
        }
    }
}

extern "C" __global__ void xqkv_gather_rows(const Gather call) {
    if (call.element_bytes == 4) {
        gather_rows<unsigned int>(call, 0x7FFFFFFF);
    } else {
        gather_rows<unsigned short>(call, 0x7FFF);
    }
}

__device__ unsigned short bf16_from(float value) {
    unsigned int bits = __float_as_uint(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) {
        return (bits >> 16) | 0x40;
    }
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
}

__device__ float value_of_bf16(unsigned short bits) {
    return __uint_as_float(static_cast<unsigned int>(bits) << 16);
}

__device__ unsigned short f16_from(float value) {
    unsigned int bits = __float_as_uint(value);
    unsigned int sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) {
        return sign | 0x7E00 | ((magnitude >> 13) & 0x1FF);
    }
    // 65536. What is rounded up to it below becomes infinity by the carry.
    if (magnitude >= 0x47800000) {
        return sign | 0x7C00;
    }
    // Below 2^-14: the sum with a half has the unit of the smallest f16.
    if (magnitude < 0x38800000) {
        return sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3F000000);
    }
    return sign | ((magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13);
}

__device__ float value_of_f16(unsigned short bits) {
    unsigned int sign = static_cast<unsigned int>(bits & 0x8000) << 16;
    unsigned int magnitude = static_cast<unsigned int>(bits & 0x7FFF) << 13;
    if ((bits & 0x7C00) == 0x7C00) {
        return __uint_as_float(sign | 0x7F800000 | magnitude);
    }
    // The exponents' biases are 112 apart; times 2^112 is exact, for denormal numbers as well.
    return __uint_as_float(sign | magnitude) * __uint_as_float((127u + 112) << 23);
}

__device__ float staged_at(const Store &call, int64 at) {
    if (call.staged_dtype == F32) {
        return static_cast<const float *>(call.staged)[at];
    }
    unsigned short bits = static_cast<const unsigned short *>(call.staged)[at];
    return call.staged_dtype == BF16 ? value_of_bf16(bits) : value_of_f16(bits);
}

__device__ float rounded(float value, int dtype) {
    switch (dtype) {
    case BF16:
        return value_of_bf16(bf16_from(value));
    case F16:
        return value_of_f16(f16_from(value));
    default:
        return value;
    }
}

__device__ void put(const Store &call, int64 place, float value) {
    if (call.dtype == F32) {
        float *target = static_cast<float *>(call.destination) + place;
        *target = call.accumulate ? *target + value : value;
        return;
    }
    unsigned short *target = static_cast<unsigned short *>(call.destination) + place;
    bool is_bf16 = call.dtype == BF16;
    if (call.accumulate) {
        value = (is_bf16 ? value_of_bf16(*target) : value_of_f16(*target)) + value;
    }
    *target = is_bf16 ? bf16_from(value) : f16_from(value);
}

// Where the first lane of a head of a staged row goes.
__device__ int64 place_of(const Store &call, int64 row, int64 head) {
    int64 place = call.first_row + row;
    if (call.slots) {
        place = call.slots[place];
        if (place < 0 || place >= call.slot_count) {
            return NOWHERE;
        }
    }
    int64 start = head * call.head_stride;
    if (call.group_rows == 0) {
        return start + place * call.row_stride;
    }
    int64 group = place / call.group_rows;
    return start + group * call.group_stride + (place - group * call.group_rows) * call.row_stride;
}

// A head's 1 / sqrt(mean of squares + epsilon), by one warp: thread t sums lanes t, t + 32, ...,
// and the 32 sums are added as a butterfly. That order is part of what the kernel answers.
__device__ float norm_factor(const Store &call, int64 first) {
    float sum = 0;
    for (int64 lane = threadIdx.x; lane < call.width; lane += TILE) {
        float value = staged_at(call, first + lane);
        sum += value * value;
    }
    for (int distance = TILE / 2; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, distance);
    }
    return 1.0f / sqrtf(sum / static_cast<float>(call.width) + call.epsilon);
}

// The plain loop is
//
//     for row, head: factor = norm_factor(staged[row, head])
//         for lane: put(place_of(row, head) + lane * width_stride,
//                       rounded(staged[row, head, lane] * factor) * norm_weight[lane] * scale)
//
// and here a block takes 32 rows of a head, and of them 32 lanes at a time. It reads a tile along
// lanes, and writes it along rows or along lanes, whichever are closer in the destination.
extern "C" __global__ void __launch_bounds__(TILE *WARPS) xqkv_store(const Store call) {
    __shared__ float tile[TILE][TILE + 1];
    __shared__ float factors[TILE];
    __shared__ int64 places[TILE];
    int x = threadIdx.x, y = threadIdx.y;
    bool is_along_rows = call.row_stride < call.width_stride;
    int64 tiles = (call.rows + TILE - 1) / TILE * call.heads;
    for (int64 at = blockIdx.x; at < tiles; at += gridDim.x) {
        int64 head = at % call.heads, first_row = at / call.heads * TILE;
        int64 pitch = call.staged_row_stride;
        int64 staged = first_row * pitch + head * call.width;
        int rows = static_cast<int>(min(call.rows - first_row, static_cast<int64>(TILE)));
        if (y == 0 && x < rows) {
            places[x] = place_of(call, first_row + x, head);
        }
        for (int row = y; call.norm_weight && row < rows; row += WARPS) {
            float factor = norm_factor(call, staged + row * pitch);
            if (x == 0) {
                factors[row] = factor;
            }
        }
        for (int64 first_lane = 0; first_lane < call.width; first_lane += TILE) {
            int lanes = static_cast<int>(min(call.width - first_lane, static_cast<int64>(TILE)));
            for (int row = y; row < rows && x < lanes; row += WARPS) {
                tile[row][x] = staged_at(call, staged + row * pitch + first_lane + x);
            }
            __syncthreads();
            for (int other = y; other < TILE; other += WARPS) {
                int row = is_along_rows ? x : other, lane = is_along_rows ? other : x;
                if (row >= rows || lane >= lanes || places[row] == NOWHERE) {
                    continue;
                }
                float value = tile[row][lane];
                if (call.norm_weight) {
                    value = rounded(value * factors[row], call.round_dtype);
                    value *= call.norm_weight[first_lane + lane];
                }
                value *= call.scale;
                put(call, places[row] + (first_lane + lane) * call.width_stride, value);
            }
            __syncthreads();
        }
    }
}
