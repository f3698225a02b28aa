/* A linear layer by oneDNN's C functions: weights brought to the layout that it asks for, a copy for each turn. */
#include <dnnl.h>
#include <stdlib.h>

struct linear {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_t primitive;
  dnnl_memory_t rows, bias, result;
  /* Of integers. */
  dnnl_memory_t row_scale, weight_scales;
  dnnl_memory_t weights[];
};

#define CHECK(call)                       \
  do {                                    \
    dnnl_status_t status = (call);        \
    if (status != dnnl_success) return status; \
  } while (0)

static dnnl_status_t reorder(struct linear *linear, dnnl_memory_t from, dnnl_memory_t to) {
  const_dnnl_memory_desc_t source, target;
  CHECK(dnnl_memory_get_memory_desc(from, &source));
  CHECK(dnnl_memory_get_memory_desc(to, &target));
  dnnl_primitive_desc_t description;
  CHECK(dnnl_reorder_primitive_desc_create(&description, source, linear->engine, target, linear->engine, NULL));
  dnnl_primitive_t primitive;
  CHECK(dnnl_primitive_create(&primitive, description));
  dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
  CHECK(dnnl_primitive_execute(primitive, linear->stream, 2, arguments));
  CHECK(dnnl_stream_wait(linear->stream));
  CHECK(dnnl_primitive_destroy(primitive));
  return dnnl_primitive_desc_destroy(description);
}

/* The rows' scale and one for each output. */
static dnnl_status_t scale(struct linear *linear, dnnl_dim_t outputs, float *scales, dnnl_primitive_attr_t *made) {
  dnnl_memory_desc_t one, each;
  CHECK(dnnl_primitive_attr_create(made));
  CHECK(dnnl_primitive_attr_set_scales_mask(*made, DNNL_ARG_SRC, 0));
  CHECK(dnnl_primitive_attr_set_scales_mask(*made, DNNL_ARG_WEIGHTS, 1 << 1));
  CHECK(dnnl_memory_desc_create_with_tag(&one, 1, (dnnl_dims_t){1}, dnnl_f32, dnnl_a));
  CHECK(dnnl_memory_desc_create_with_tag(&each, 1, (dnnl_dims_t){outputs}, dnnl_f32, dnnl_a));
  CHECK(dnnl_memory_create(&linear->row_scale, one, linear->engine, scales));
  return dnnl_memory_create(&linear->weight_scales, each, linear->engine, scales + 1);
}

/* `type` is a dnnl_data_type_t, of integers with scales, whose bias and result are f32. The arrays of rows, bias, result
   and scales are used until the end. */
dnnl_status_t linear_new(int type, dnnl_dim_t rows, dnnl_dim_t inputs, dnnl_dim_t outputs, int copies, void *weight,
                         void *bias, void *row, void *result, float *scales, struct linear **made) {
  const int result_type = scales == NULL ? type : dnnl_f32;
  dnnl_primitive_attr_t attributes = NULL;
  struct linear *linear = calloc(1, sizeof *linear + copies * sizeof(dnnl_memory_t));
  if (linear == NULL) return dnnl_out_of_memory;
  CHECK(dnnl_engine_create(&linear->engine, dnnl_cpu, 0));
  CHECK(dnnl_stream_create(&linear->stream, linear->engine, dnnl_stream_default_flags));
  dnnl_memory_desc_t from, given, any, of_bias, to;
  CHECK(dnnl_memory_desc_create_with_tag(&from, 2, (dnnl_dims_t){rows, inputs}, type, dnnl_ab));
  CHECK(dnnl_memory_desc_create_with_tag(&given, 2, (dnnl_dims_t){inputs, outputs}, type, dnnl_ba));
  CHECK(dnnl_memory_desc_create_with_tag(&any, 2, (dnnl_dims_t){inputs, outputs}, type, dnnl_format_tag_any));
  CHECK(dnnl_memory_desc_create_with_tag(&of_bias, 2, (dnnl_dims_t){1, outputs}, result_type, dnnl_ab));
  CHECK(dnnl_memory_desc_create_with_tag(&to, 2, (dnnl_dims_t){rows, outputs}, result_type, dnnl_ab));
  if (scales != NULL) CHECK(scale(linear, outputs, scales, &attributes));
  dnnl_primitive_desc_t description;
  CHECK(dnnl_matmul_primitive_desc_create(&description, linear->engine, from, any, of_bias, to, attributes));
  CHECK(dnnl_primitive_create(&linear->primitive, description));
  CHECK(dnnl_memory_create(&linear->rows, from, linear->engine, row));
  CHECK(dnnl_memory_create(&linear->bias, of_bias, linear->engine, bias));
  CHECK(dnnl_memory_create(&linear->result, to, linear->engine, result));
  dnnl_memory_t plain;
  CHECK(dnnl_memory_create(&plain, given, linear->engine, weight));
  const_dnnl_memory_desc_t packed = dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
  for (int copy = 0; copy < copies; copy++) {
    CHECK(dnnl_memory_create(&linear->weights[copy], packed, linear->engine, DNNL_MEMORY_ALLOCATE));
    CHECK(reorder(linear, plain, linear->weights[copy]));
  }
  *made = linear;
  return dnnl_success;
}

dnnl_status_t linear_run(struct linear *linear, int copy) {
  dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, linear->rows},
                                 {DNNL_ARG_WEIGHTS, linear->weights[copy]},
                                 {DNNL_ARG_BIAS, linear->bias},
                                 {DNNL_ARG_DST, linear->result},
                                 {DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC, linear->row_scale},
                                 {DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, linear->weight_scales}};
  const int count = linear->row_scale == NULL ? 4 : 6;
  CHECK(dnnl_primitive_execute(linear->primitive, linear->stream, count, arguments));
  return dnnl_stream_wait(linear->stream);
}
