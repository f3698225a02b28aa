/* A linear layer by oneDNN's C functions: weights brought to the layout that it asks for, a copy for each turn. */
#include <dnnl.h>
#include <stdlib.h>

struct linear {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_t primitive;
  dnnl_memory_t rows, bias, result;
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

/* `type` is a dnnl_data_type_t. The arrays of rows, bias and result are used until the end. */
dnnl_status_t linear_new(int type, dnnl_dim_t rows, dnnl_dim_t inputs, dnnl_dim_t outputs, int copies, void *weight,
                         void *bias, void *row, void *result, struct linear **made) {
  struct linear *linear = calloc(1, sizeof *linear + copies * sizeof(dnnl_memory_t));
  if (linear == NULL) return dnnl_out_of_memory;
  CHECK(dnnl_engine_create(&linear->engine, dnnl_cpu, 0));
  CHECK(dnnl_stream_create(&linear->stream, linear->engine, dnnl_stream_default_flags));
  dnnl_memory_desc_t from, given, any, of_bias, to;
  CHECK(dnnl_memory_desc_create_with_tag(&from, 2, (dnnl_dims_t){rows, inputs}, type, dnnl_ab));
  CHECK(dnnl_memory_desc_create_with_tag(&given, 2, (dnnl_dims_t){inputs, outputs}, type, dnnl_ba));
  CHECK(dnnl_memory_desc_create_with_tag(&any, 2, (dnnl_dims_t){inputs, outputs}, type, dnnl_format_tag_any));
  CHECK(dnnl_memory_desc_create_with_tag(&of_bias, 2, (dnnl_dims_t){1, outputs}, type, dnnl_ab));
  CHECK(dnnl_memory_desc_create_with_tag(&to, 2, (dnnl_dims_t){rows, outputs}, type, dnnl_ab));
  dnnl_primitive_desc_t description;
  CHECK(dnnl_matmul_primitive_desc_create(&description, linear->engine, from, any, of_bias, to, NULL));
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
                                 {DNNL_ARG_DST, linear->result}};
  CHECK(dnnl_primitive_execute(linear->primitive, linear->stream, 4, arguments));
  return dnnl_stream_wait(linear->stream);
}
