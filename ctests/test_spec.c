/* Specs: what is a layer and what is not. */
#include "fixture.h"

#define REFUSED(field, value, status, word)                                  \
    do {                                                                     \
        xqkv_spec spec = test_spec();                                        \
        spec.field = (value);                                                \
        CHECK_REFUSED((status), (word), xqkv_spec_check(&spec, &error));     \
        spec.field = test_spec().field;                                      \
        CHECK_OK(xqkv_spec_check(&spec, &error));                            \
    } while (0)

static void good_specs_pass(void) {
    xqkv_spec spec = test_spec();
    CHECK_OK(xqkv_spec_check(&spec, &error));
    spec.layer_count = 0, spec.value_head_width = 0, spec.query_scale = 0;
    CHECK_OK(xqkv_spec_check(&spec, &error));
    spec.query_heads = 0, spec.decoder_width = 0;
    CHECK_OK(xqkv_spec_check(&spec, &error));
    spec = test_spec();
    spec.key_value_heads = 0, spec.encoder_width = 0;
    CHECK_OK(xqkv_spec_check(&spec, &error));
    spec = test_spec();
    spec.decoder_width = (INT64_C(1) << 31) + 1;
    CHECK_OK(xqkv_spec_check(&spec, &error));
}

static void zero_negative_and_unequal_sizes_are_refused(void) {
    REFUSED(layer_count, -1, XQKV_STATUS_INVALID_ARGUMENT, "layer_count");
    REFUSED(decoder_width, 0, XQKV_STATUS_INVALID_ARGUMENT, "decoder_width");
    REFUSED(decoder_width, -5, XQKV_STATUS_INVALID_ARGUMENT, "decoder_width");
    REFUSED(encoder_width, 0, XQKV_STATUS_INVALID_ARGUMENT, "encoder_width");
    REFUSED(encoder_width, INT64_MIN, XQKV_STATUS_INVALID_ARGUMENT, "encoder_width");
    REFUSED(query_heads, -4, XQKV_STATUS_INVALID_ARGUMENT, "query_heads");
    REFUSED(query_heads, 5, XQKV_STATUS_INVALID_ARGUMENT, "multiple of key_value_heads");
    REFUSED(key_value_heads, -2, XQKV_STATUS_INVALID_ARGUMENT, "key_value_heads");
    REFUSED(head_width, 0, XQKV_STATUS_INVALID_ARGUMENT, "head_width");
    REFUSED(head_width, -3, XQKV_STATUS_INVALID_ARGUMENT, "head_width");
    REFUSED(value_head_width, -2, XQKV_STATUS_INVALID_ARGUMENT, "value_head_width");
    xqkv_spec spec = test_spec();
    spec.query_heads = spec.key_value_heads = 0;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "both 0", xqkv_spec_check(&spec, &error));
}

static void products_beyond_63_bits_are_refused(void) {
    REFUSED(layer_count, INT64_MAX, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED(decoder_width, INT64_MAX, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED(encoder_width, INT64_MAX / 4, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED(head_width, INT64_MAX / 2, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
    REFUSED(query_heads, INT64_C(1) << 62, XQKV_STATUS_SIZE_OVERFLOW, "2^63");
}

static void a_norm_needs_an_epsilon_above_0(void) {
    static const float bad[] = {0, -1e-5f, NAN, INFINITY};
    xqkv_spec spec = test_spec();
    spec.norm = XQKV_NORM_RMS;
    for (int at = 0; at < 4; at++) {
        spec.norm_epsilon = bad[at];
        CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "norm_epsilon", xqkv_spec_check(&spec, &error));
    }
    spec.norm_epsilon = 1e-6f;
    for (spec.norm_rounds_first = 0; spec.norm_rounds_first < 2; spec.norm_rounds_first++)
        CHECK_OK(xqkv_spec_check(&spec, &error));
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "norm_rounds_first", xqkv_spec_check(&spec, &error));
    spec.norm_rounds_first = 1, spec.weight_dtype = XQKV_DTYPE_INT8;
    CHECK_REFUSED(XQKV_STATUS_INVALID_ARGUMENT, "no rounding to XQKV_DTYPE_INT8", xqkv_spec_check(&spec, &error));
    spec.decoder_width = (INT64_C(1) << 17) + 1;
    CHECK_REFUSED(XQKV_STATUS_NOT_SUPPORTED, "131072", xqkv_spec_check(&spec, &error));
}

static void flags_enums_and_scales_are_checked(void) {
    REFUSED(weight_dtype, 0, XQKV_STATUS_INVALID_ENUM, "weight_dtype");
    REFUSED(weight_dtype, INT32_MIN, XQKV_STATUS_INVALID_ENUM, "weight_dtype is -2147483648");
    REFUSED(weight_dtype, 5, XQKV_STATUS_INVALID_ENUM, "XQKV_DTYPE_BF16");
    REFUSED(query_bias, 2, XQKV_STATUS_INVALID_ARGUMENT, "query_bias");
    REFUSED(key_bias, -1, XQKV_STATUS_INVALID_ARGUMENT, "key_bias");
    REFUSED(value_bias, 7, XQKV_STATUS_INVALID_ARGUMENT, "value_bias");
    REFUSED(query_scale, NAN, XQKV_STATUS_INVALID_ARGUMENT, "query_scale");
    REFUSED(key_scale, INFINITY, XQKV_STATUS_INVALID_ARGUMENT, "key_scale");
    REFUSED(value_scale, -INFINITY, XQKV_STATUS_INVALID_ARGUMENT, "value_scale");
    REFUSED(norm, 9, XQKV_STATUS_INVALID_ENUM, "norm");
    REFUSED(norm, XQKV_NORM_RMS, XQKV_STATUS_INVALID_ARGUMENT, "norm_epsilon is 0");
    REFUSED(norm_epsilon, 1e-5f, XQKV_STATUS_INVALID_ARGUMENT, "norm_epsilon");
    REFUSED(norm_rounds_first, 1, XQKV_STATUS_INVALID_ARGUMENT, "norm_rounds_first");
}

int main(void) {
    xqkv_spec spec = test_spec();
    good_specs_pass();
    zero_negative_and_unequal_sizes_are_refused();
    products_beyond_63_bits_are_refused();
    flags_enums_and_scales_are_checked();
    a_norm_needs_an_epsilon_above_0();
    CHECK_REFUSED(XQKV_STATUS_NULL_ARGUMENT, "spec", xqkv_spec_check(NULL, &error));
    CHECK(xqkv_spec_init(NULL, sizeof spec) == XQKV_STATUS_NULL_ARGUMENT);
    CHECK_REFUSED(XQKV_STATUS_MISALIGNED, "spec is",
                  xqkv_spec_check((const xqkv_spec *)(const void *)((char *)&spec + 1), &error));
    CHECK_SIZES(xqkv_spec, spec, xqkv_spec_check(&spec, &error));
    CHECK_OK(xqkv_spec_check(&spec, &error));
    return check_done();
}
