// What is asked of each kind of descriptor: layouts, matmul descriptors and preferences.
#include "answers.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { BYTES = 256, LARGEST = 16 };

typedef struct {
    const char *name;
    int id;
} attribute;

typedef struct {
    const char *name;
    int (*init)(void *descriptor, size_t size);
    int (*set)(void *descriptor, int id, const void *value, size_t size);
    int (*get)(void *descriptor, int id, void *value, size_t size, size_t *written);
    int (*create)(void **descriptor);
    int (*destroy)(void *descriptor);
    const attribute *attributes;
    const size_t *sizes;
} kind;

#define ACCESS(short, long) \
    static int short##_set(void *descriptor, int id, const void *value, size_t size) { \
        return lt_cublasLt##long##SetAttribute(descriptor, id, value, size); \
    } \
    static int short##_get(void *descriptor, int id, void *value, size_t size, size_t *written) { \
        return lt_cublasLt##long##GetAttribute(descriptor, id, value, size, written); \
    } \
    static int short##_destroy(void *descriptor) { return lt_cublasLt##long##Destroy(descriptor); }

ACCESS(layout, MatrixLayout)
ACCESS(matmul, MatmulDesc)
ACCESS(preference, MatmulPreference)

static int layout_init(void *descriptor, size_t size) {
    return lt_cublasLtMatrixLayoutInit_internal(descriptor, size, CUDA_R_16BF, 8, 16, 24);
}

static int layout_create(void **descriptor) {
    return lt_cublasLtMatrixLayoutCreate((void *)descriptor, CUDA_R_16BF, 8, 16, 24);
}

static int matmul_init(void *descriptor, size_t size) {
    return lt_cublasLtMatmulDescInit_internal(descriptor, size, CUBLAS_COMPUTE_32F, CUDA_R_32F);
}

static int matmul_create(void **descriptor) {
    return lt_cublasLtMatmulDescCreate((void *)descriptor, CUBLAS_COMPUTE_32F, CUDA_R_32F);
}

static int preference_init(void *descriptor, size_t size) {
    return lt_cublasLtMatmulPreferenceInit_internal(descriptor, size);
}

static int preference_create(void **descriptor) {
    return lt_cublasLtMatmulPreferenceCreate((void *)descriptor);
}

#define NAMED(id) {#id, id}

// The batch mode is not among them: its value is looked at when it is set, and we never set it.
static const attribute LAYOUT[] = {
    NAMED(CUBLASLT_MATRIX_LAYOUT_TYPE),
    NAMED(CUBLASLT_MATRIX_LAYOUT_ORDER),
    NAMED(CUBLASLT_MATRIX_LAYOUT_ROWS),
    NAMED(CUBLASLT_MATRIX_LAYOUT_COLS),
    NAMED(CUBLASLT_MATRIX_LAYOUT_LD),
    NAMED(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT),
    NAMED(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET),
    NAMED(CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET),
    NAMED(CUBLASLT_GROUPED_MATRIX_LAYOUT_ROWS_ARRAY),
    NAMED(CUBLASLT_GROUPED_MATRIX_LAYOUT_COLS_ARRAY),
    NAMED(CUBLASLT_GROUPED_MATRIX_LAYOUT_LD_ARRAY),
    NAMED(CUBLASLT_GROUPED_MATRIX_LAYOUT_ROWS_COLS_ARRAY_INTEGER_WIDTH),
    NAMED(CUBLASLT_GROUPED_MATRIX_LAYOUT_LD_ARRAY_INTEGER_WIDTH),
    {"none, -1", -1},
    {"none, 99", 99},
    {0},
};

// The descriptor of emulation is not among them: its value is followed as a pointer.
static const attribute MATMUL[] = {
    NAMED(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE),
    NAMED(CUBLASLT_MATMUL_DESC_SCALE_TYPE),
    NAMED(CUBLASLT_MATMUL_DESC_POINTER_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_TRANSA),
    NAMED(CUBLASLT_MATMUL_DESC_TRANSB),
    NAMED(CUBLASLT_MATMUL_DESC_TRANSC),
    NAMED(CUBLASLT_MATMUL_DESC_FILL_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE),
    NAMED(CUBLASLT_MATMUL_DESC_BIAS_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE),
    NAMED(CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE),
    NAMED(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET),
    NAMED(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_C_SCALE_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_D_SCALE_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_AMAX_D_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_AMAX_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_FAST_ACCUM),
    NAMED(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE),
    NAMED(CUBLASLT_MATMUL_DESC_A_SCALE_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_B_SCALE_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_C_SCALE_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_D_SCALE_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_D_OUT_SCALE_POINTER),
    NAMED(CUBLASLT_MATMUL_DESC_D_OUT_SCALE_MODE),
    NAMED(CUBLASLT_MATMUL_DESC_ALPHA_BATCH_STRIDE),
    NAMED(CUBLASLT_MATMUL_DESC_BETA_BATCH_STRIDE),
    {"none, -1", -1},
    {"none, 9", 9},
    {"none, 99", 99},
    {0},
};

static const attribute PREFERENCE[] = {
    NAMED(CUBLASLT_MATMUL_PREF_SEARCH_MODE),
    NAMED(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES),
    NAMED(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK),
    NAMED(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES),
    NAMED(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES),
    NAMED(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES),
    NAMED(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES),
    NAMED(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT),
    NAMED(CUBLASLT_MATMUL_PREF_IMPL_MASK),
    NAMED(CUBLASLT_MATMUL_PREF_GROUPED_AVERAGE_REDUCTION_DIM),
    NAMED(CUBLASLT_MATMUL_PREF_GROUPED_DESC_D_AVERAGE_ROWS),
    NAMED(CUBLASLT_MATMUL_PREF_GROUPED_DESC_D_AVERAGE_COLS),
    {"none, 2", 2},
    {"none, 4", 4},
    {"none, 99", 99},
    {0},
};

static const size_t LAYOUT_SIZES[] = {0, 8, 48, 64, 112, BYTES, 2 * BYTES, SIZE_MAX};
static const size_t MATMUL_SIZES[] = {0, 8, 48, 184, BYTES, 2 * BYTES, SIZE_MAX};
static const size_t PREFERENCE_SIZES[] = {0, 8, 48, 64, 96, BYTES, 2 * BYTES, SIZE_MAX};

#define KIND(short, attributes) \
    { \
        #short, short##_init, short##_set, short##_get, short##_create, short##_destroy, \
            attributes, attributes##_SIZES \
    }

static const kind KINDS[] = {
    KIND(layout, LAYOUT),
    KIND(matmul, MATMUL),
    KIND(preference, PREFERENCE),
};

static void print_bytes(const unsigned char *bytes, size_t count) {
    for (size_t index = count; index-- > 0;) {
        printf("%02x", bytes[index]);
    }
}

// A descriptor's sizes in the headers since CUDA 12.0 are taken, and larger ones. cuBLASLt also
// takes some that none of those had; the simulator need not.
static void ask_init(const kind *kind) {
    uint64_t room[2 * BYTES / 8];
    for (const size_t *size = kind->sizes; *size != SIZE_MAX; size++) {
        printf("%s init in %zu bytes: %d\n", kind->name, *size, kind->init(room, *size));
    }
}

static void ask_create(const kind *kind) {
    void *descriptor = NULL;
    printf("%s create: %d", kind->name, kind->create(&descriptor));
    printf(", of NULL %d", kind->create(NULL));
    printf(", destroy: %d", kind->destroy(descriptor));
    printf(", of NULL %d\n", kind->destroy(NULL));
}

// Its size, its first value, and which sizes are taken.
static void ask_sizes(const kind *kind, const attribute *attribute) {
    uint64_t descriptor[BYTES / 8];
    unsigned char value[LARGEST] = {0};
    size_t size = 77;
    kind->init(descriptor, BYTES);
    int status = kind->get(descriptor, attribute->id, NULL, 0, &size);
    printf("%s %s: %d, size %zu;", kind->name, attribute->name, status, size);
    for (size_t tried = 0; tried <= LARGEST; tried++) {
        size_t written = 77;
        if (kind->get(descriptor, attribute->id, value, tried, &written) == 0) {
            printf(" get of %zu writes %zu: ", tried, written);
            print_bytes(value, tried);
        }
    }
    printf("; set by size:");
    for (size_t tried = 0; tried <= LARGEST; tried++) {
        printf(" %d", kind->set(descriptor, attribute->id, value, tried));
    }
    printf("\n");
}

// How many attributes differ between two descriptors of a kind.
static int differences(const kind *kind, void *left, void *right) {
    int count = 0;
    for (const attribute *attribute = kind->attributes; attribute->name; attribute++) {
        unsigned char values[2][LARGEST] = {{0}};
        size_t size = 0;
        kind->get(left, attribute->id, NULL, 0, &size);
        if (size <= LARGEST) {
            kind->get(left, attribute->id, values[0], size, &size);
            kind->get(right, attribute->id, values[1], size, &size);
        }
        count += memcmp(values[0], values[1], LARGEST) != 0;
    }
    return count;
}

// A value set on a bytewise copy is there alone, and the original has none of it.
static void ask_copy(const kind *kind, const attribute *attribute) {
    uint64_t original[BYTES / 8] = {0}, copy[BYTES / 8];
    unsigned char value[LARGEST], back[LARGEST] = {0};
    size_t size = 0;
    memset(value, 0xA5, sizeof value);
    kind->init(original, BYTES);
    memcpy(copy, original, BYTES);
    kind->get(copy, attribute->id, NULL, 0, &size);
    int status = kind->set(copy, attribute->id, value, size);
    kind->get(copy, attribute->id, back, size, &size);
    printf("%s %s on a copy: %d, ", kind->name, attribute->name, status);
    print_bytes(back, size);
    printf(", %d differ\n", differences(kind, original, copy));
}

static void ask_null(const kind *kind, const attribute *attribute) {
    uint64_t descriptor[BYTES / 8], value = 0;
    size_t size = 0, written = 0;
    kind->init(descriptor, BYTES);
    kind->get(descriptor, attribute->id, NULL, 0, &size);
    printf("%s %s with NULL:", kind->name, attribute->name);
    printf(" set %d", kind->set(NULL, attribute->id, &value, size));
    printf(" %d,", kind->set(descriptor, attribute->id, NULL, size));
    printf(" get %d", kind->get(NULL, attribute->id, &value, size, &written));
    printf(" %d", kind->get(descriptor, attribute->id, NULL, size, &written));
    printf(" %d", kind->get(descriptor, attribute->id, &value, size, NULL));
    printf(" %d\n", kind->get(descriptor, attribute->id, NULL, 0, NULL));
}

// Nothing is refused when a descriptor is made, however wrong.
static void ask_values(void) {
    uint64_t room[BYTES / 8];
    static const struct { int type; uint64_t rows, columns; int64_t ld; } LAYOUTS[] = {
        {99, 8, 8, 8}, {CUDA_R_32F, 0, 8, 8}, {CUDA_R_32F, 8, 0, 8}, {CUDA_R_32F, 8, 8, 1},
        {CUDA_R_32F, 8, 8, -1}, {CUDA_R_32F, UINT64_MAX, UINT64_MAX, INT64_MAX},
    };
    for (size_t index = 0; index < sizeof LAYOUTS / sizeof *LAYOUTS; index++) {
        int status = lt_cublasLtMatrixLayoutInit_internal(
            (void *)room, BYTES, LAYOUTS[index].type, LAYOUTS[index].rows,
            LAYOUTS[index].columns, LAYOUTS[index].ld);
        printf("layout of odd values %zu: %d\n", index, status);
    }
    static const int MATMULS[][2] = {{5, 0}, {CUBLAS_COMPUTE_32F, 99},
                                     {CUBLAS_COMPUTE_32F, CUDA_R_16BF}, {-1, -1}};
    for (size_t index = 0; index < sizeof MATMULS / sizeof *MATMULS; index++) {
        int status = lt_cublasLtMatmulDescInit_internal((void *)room, BYTES, MATMULS[index][0],
                                                        MATMULS[index][1]);
        printf("matmul of odd types %zu: %d\n", index, status);
    }
}

void ask_descriptors(void) {
    for (size_t index = 0; index < sizeof KINDS / sizeof *KINDS; index++) {
        const kind *kind = &KINDS[index];
        ask_init(kind);
        ask_create(kind);
        for (const attribute *attribute = kind->attributes; attribute->name; attribute++) {
            ask_sizes(kind, attribute);
            ask_copy(kind, attribute);
            ask_null(kind, attribute);
        }
    }
    ask_values();
}
