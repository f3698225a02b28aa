/* Uses every struct and every constant of the header; compiled in each language standard, and linked to header_first.c. */
#include <xqkv.h>
#include <xqkv.h>

int header_second(void);

static int use_checkpoint(void) {
    xqkv_checkpoint plain;
    if (xqkv_checkpoint_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.convert == 0)
        + (sizeof plain.directory == 0)
        + (sizeof plain.tensor_pattern == 0)
        + (sizeof plain.query_name == 0)
        + (sizeof plain.key_name == 0)
        + (sizeof plain.value_name == 0);
}

static int use_spec(void) {
    xqkv_spec plain;
    if (xqkv_spec_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.weight_dtype == 0)
        + (sizeof plain.layer_count == 0)
        + (sizeof plain.decoder_width == 0)
        + (sizeof plain.encoder_width == 0)
        + (sizeof plain.query_heads == 0)
        + (sizeof plain.key_value_heads == 0)
        + (sizeof plain.head_width == 0)
        + (sizeof plain.value_head_width == 0)
        + (sizeof plain.query_bias == 0)
        + (sizeof plain.key_bias == 0)
        + (sizeof plain.value_bias == 0)
        + (sizeof plain.query_scale == 0)
        + (sizeof plain.key_scale == 0)
        + (sizeof plain.value_scale == 0)
        + (sizeof plain.norm == 0)
        + (sizeof plain.norm_epsilon == 0)
        + (sizeof plain.norm_rounds_first == 0);
}

static int use_error(void) {
    xqkv_error plain;
    return 0
        + (sizeof plain.status == 0)
        + (sizeof plain.message == 0);
}

static int use_message(void) {
    xqkv_message plain;
    return 0
        + (sizeof plain.data == 0)
        + (sizeof plain.bytes == 0)
        + (sizeof plain.peer == 0)
        + (sizeof plain.is_sent == 0)
        + (sizeof plain.reserved == 0);
}

static int use_unique_id(void) {
    xqkv_unique_id plain;
    return sizeof plain.bytes == 0;
}

static int use_collectives(void) {
    xqkv_collectives plain;
    if (xqkv_collectives_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.reserved == 0)
        + (sizeof plain.all_gather == 0)
        + (sizeof plain.broadcast == 0)
        + (sizeof plain.exchange == 0)
        + (sizeof plain.poll == 0)
        + (sizeof plain.abort == 0)
        + (sizeof plain.user == 0);
}

static int use_comm_options(void) {
    xqkv_comm_options plain;
    if (xqkv_comm_options_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.flags == 0)
        + (sizeof plain.deadline_ms == 0);
}

static int use_comm_info(void) {
    xqkv_comm_info plain;
    if (xqkv_comm_info_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.kind == 0)
        + (sizeof plain.rank == 0)
        + (sizeof plain.rank_count == 0)
        + (sizeof plain.transfers == 0)
        + (sizeof plain.is_poisoned == 0)
        + (sizeof plain.nccl_version == 0);
}

static int use_context_options(void) {
    xqkv_context_options plain;
    if (xqkv_context_options_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.backend == 0)
        + (sizeof plain.device == 0)
        + (sizeof plain.thread_count == 0)
        + (sizeof plain.instruction_set == 0)
        + (sizeof plain.log_level == 0)
        + (sizeof plain.log == 0)
        + (sizeof plain.log_user == 0)
        + (sizeof plain.allocate == 0)
        + (sizeof plain.free == 0)
        + (sizeof plain.allocator_user == 0)
        + (sizeof plain.parallel_for == 0)
        + (sizeof plain.parallel_for_user == 0)
        + (sizeof plain.cuda_context == 0)
        + (sizeof plain.cublaslt_handle == 0);
}

static int use_context_info(void) {
    xqkv_context_info plain;
    if (xqkv_context_info_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.backend == 0)
        + (sizeof plain.device == 0)
        + (sizeof plain.thread_count == 0)
        + (sizeof plain.instruction_set == 0)
        + (sizeof plain.compute_capability == 0)
        + (sizeof plain.multiprocessor_count == 0)
        + (sizeof plain.driver_version == 0)
        + (sizeof plain.cublaslt_version == 0);
}

static int use_input(void) {
    xqkv_input plain;
    return 0
        + (sizeof plain.data == 0)
        + (sizeof plain.rows == 0)
        + (sizeof plain.row_stride == 0)
        + (sizeof plain.row_list == 0)
        + (sizeof plain.buffer_rows == 0)
        + (sizeof plain.dtype == 0)
        + (sizeof plain.reserved == 0);
}

static int use_view(void) {
    xqkv_view plain;
    return 0
        + (sizeof plain.data == 0)
        + (sizeof plain.layer_data == 0)
        + (sizeof plain.row_stride == 0)
        + (sizeof plain.head_stride == 0)
        + (sizeof plain.width_stride == 0)
        + (sizeof plain.layer_stride == 0)
        + (sizeof plain.group_rows == 0)
        + (sizeof plain.group_stride == 0)
        + (sizeof plain.slots == 0)
        + (sizeof plain.slot_count == 0)
        + (sizeof plain.quantization_scale == 0)
        + (sizeof plain.dtype == 0)
        + (sizeof plain.accumulate == 0);
}

static int use_forward(void) {
    xqkv_forward plain;
    if (xqkv_forward_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.flags == 0)
        + (sizeof plain.layer == 0)
        + (sizeof plain.layer_count == 0)
        + (sizeof plain.decoder == 0)
        + (sizeof plain.encoder == 0)
        + (sizeof plain.query == 0)
        + (sizeof plain.key == 0)
        + (sizeof plain.value == 0)
        + (sizeof plain.stream == 0)
        + (sizeof plain.workspace == 0)
        + (sizeof plain.workspace_bytes == 0)
        + (sizeof plain.plan == 0)
        + (sizeof plain.wait_event == 0)
        + (sizeof plain.signal_event == 0)
        + (sizeof plain.encoder_rank_rows == 0)
        + (sizeof plain.chunk_rows == 0);
}

static int use_projection_options(void) {
    xqkv_projection_options plain;
    if (xqkv_projection_options_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.split == 0)
        + (sizeof plain.rank == 0)
        + (sizeof plain.rank_count == 0)
        + (sizeof plain.query_head_begin == 0)
        + (sizeof plain.query_head_count == 0)
        + (sizeof plain.key_value_head_begin == 0)
        + (sizeof plain.key_value_head_count == 0)
        + (sizeof plain.layer_begin == 0)
        + (sizeof plain.layer_count == 0)
        + (sizeof plain.comm == 0)
        + (sizeof plain.flags == 0);
}

static int use_shard(void) {
    xqkv_shard plain;
    if (xqkv_shard_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.query_head_begin == 0)
        + (sizeof plain.query_head_count == 0)
        + (sizeof plain.key_value_head_begin == 0)
        + (sizeof plain.key_value_head_count == 0)
        + (sizeof plain.layer_begin == 0)
        + (sizeof plain.layer_count == 0)
        + (sizeof plain.query_columns == 0)
        + (sizeof plain.key_columns == 0)
        + (sizeof plain.value_columns == 0)
        + (sizeof plain.weight_bytes == 0);
}

static int use_plan_options(void) {
    xqkv_plan_options plain;
    if (xqkv_plan_options_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.flags == 0)
        + (sizeof plain.alignment_bytes == 0)
        + (sizeof plain.workspace_limit == 0);
}

static int use_workspace(void) {
    xqkv_workspace plain;
    if (xqkv_workspace_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.reserved == 0)
        + (sizeof plain.minimum_bytes == 0)
        + (sizeof plain.recommended_bytes == 0)
        + (sizeof plain.alignment_bytes == 0);
}

static int use_stats(void) {
    xqkv_stats plain;
    if (xqkv_stats_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.multiply_adds == 0)
        + (sizeof plain.padding_multiply_adds == 0)
        + (sizeof plain.matmuls == 0)
        + (sizeof plain.weights_version == 0)
        + (sizeof plain.plans_made == 0)
        + (sizeof plain.transfers == 0)
        + (sizeof plain.received_bytes == 0);
}

static int use_tensor(void) {
    xqkv_tensor plain;
    if (xqkv_tensor_init(&plain, sizeof plain) != XQKV_STATUS_OK) return 1;
    return 0
        + (sizeof plain.struct_size == 0)
        + (sizeof plain.dtype == 0)
        + (sizeof plain.data == 0)
        + (sizeof plain.rows == 0)
        + (sizeof plain.columns == 0)
        + (sizeof plain.row_stride == 0)
        + (sizeof plain.extent == 0)
        + (sizeof plain.convert == 0)
        + (sizeof plain.layout == 0)
        + (sizeof plain.fused_order == 0)
        + (sizeof plain.memory == 0)
        + (sizeof plain.ownership == 0)
        + (sizeof plain.scale == 0)
        + (sizeof plain.scale_dtype == 0)
        + (sizeof plain.reserved == 0)
        + (sizeof plain.scale_block_rows == 0)
        + (sizeof plain.scale_block_columns == 0);
}

int header_second(void) {
    int bad = 0;
    bad += use_checkpoint();
    bad += use_spec();
    bad += use_error();
    bad += use_message();
    bad += use_collectives();
    bad += use_unique_id();
    bad += use_comm_options();
    bad += use_comm_info();
    bad += use_context_options();
    bad += use_context_info();
    bad += use_input();
    bad += use_view();
    bad += use_forward();
    bad += use_projection_options();
    bad += use_shard();
    bad += use_plan_options();
    bad += use_workspace();
    bad += use_stats();
    bad += use_tensor();
    bad += XQKV_STATUS_OK != 0;
    bad += XQKV_STATUS_NULL_ARGUMENT != 101;
    bad += XQKV_STATUS_INVALID_STRUCT_SIZE != 102;
    bad += XQKV_STATUS_INVALID_HANDLE != 103;
    bad += XQKV_STATUS_INVALID_ENUM != 104;
    bad += XQKV_STATUS_INVALID_ARGUMENT != 105;
    bad += XQKV_STATUS_SIZE_OVERFLOW != 106;
    bad += XQKV_STATUS_INVALID_STRIDE != 107;
    bad += XQKV_STATUS_MISALIGNED != 108;
    bad += XQKV_STATUS_OVERLAP != 109;
    bad += XQKV_STATUS_INVALID_SHAPE != 110;
    bad += XQKV_STATUS_INVALID_DTYPE != 111;
    bad += XQKV_STATUS_INDIVISIBLE_HEADS != 112;
    bad += XQKV_STATUS_LAYER_OUT_OF_RANGE != 113;
    bad += XQKV_STATUS_DUPLICATE_PART != 114;
    bad += XQKV_STATUS_BUFFER_TOO_SMALL != 115;
    bad += XQKV_STATUS_WRONG_MEMORY != 116;
    bad += XQKV_STATUS_NOT_READY != 201;
    bad += XQKV_STATUS_WORKSPACE_TOO_SMALL != 202;
    bad += XQKV_STATUS_HANDLE_POISONED != 203;
    bad += XQKV_STATUS_PLAN_NEEDED != 204;
    bad += XQKV_STATUS_PLAN_MISMATCH != 205;
    bad += XQKV_STATUS_NOT_SUPPORTED != 301;
    bad += XQKV_STATUS_LIBRARY_MISSING != 302;
    bad += XQKV_STATUS_LIBRARY_UNSUITABLE != 303;
    bad += XQKV_STATUS_NO_DEVICE != 304;
    bad += XQKV_STATUS_DEVICE_REFUSED != 305;
    bad += XQKV_STATUS_OUT_OF_MEMORY != 401;
    bad += XQKV_STATUS_THREAD_FAILED != 402;
    bad += XQKV_STATUS_TOO_MANY_HANDLES != 403;
    bad += XQKV_STATUS_CHECKPOINT_NOT_FOUND != 501;
    bad += XQKV_STATUS_CHECKPOINT_UNREADABLE != 502;
    bad += XQKV_STATUS_CHECKPOINT_CORRUPT != 503;
    bad += XQKV_STATUS_CHECKPOINT_UNKNOWN_FAMILY != 504;
    bad += XQKV_STATUS_CHECKPOINT_MISSING_TENSOR != 505;
    bad += XQKV_STATUS_CHECKPOINT_MISMATCH != 506;
    bad += XQKV_STATUS_DEVICE_FAILED != 601;
    bad += XQKV_STATUS_CALLBACK_FAILED != 602;
    bad += XQKV_STATUS_MISMATCH != 701;
    bad += XQKV_STATUS_PEER_LOST != 702;
    bad += XQKV_STATUS_TIMED_OUT != 703;
    bad += XQKV_STATUS_COMM_POISONED != 704;
    bad += XQKV_STATUS_PANIC != 901;
    bad += XQKV_EFFECT_NONE != 1;
    bad += XQKV_EFFECT_OUTPUTS_UNDEFINED != 2;
    bad += XQKV_EFFECT_COMMUNICATOR_POISONED != 3;
    bad += XQKV_EFFECT_HANDLE_POISONED != 4;
    bad += XQKV_DTYPE_F32 != 1;
    bad += XQKV_DTYPE_F16 != 2;
    bad += XQKV_DTYPE_BF16 != 3;
    bad += XQKV_DTYPE_INT8 != 4;
    bad += XQKV_LOG_LEVEL_ERROR != 1;
    bad += XQKV_LOG_LEVEL_WARNING != 2;
    bad += XQKV_LOG_LEVEL_INFO != 3;
    bad += XQKV_LOG_LEVEL_DEBUG != 4;
    bad += XQKV_BACKEND_AUTO != 0;
    bad += XQKV_BACKEND_HOST != 1;
    bad += XQKV_BACKEND_CUDA != 2;
    bad += XQKV_INSTRUCTION_SET_AUTO != 0;
    bad += XQKV_INSTRUCTION_SET_PORTABLE != 1;
    bad += XQKV_INSTRUCTION_SET_AVX2 != 2;
    bad += XQKV_INSTRUCTION_SET_AVX512 != 3;
    bad += XQKV_INSTRUCTION_SET_AVX512_BF16 != 4;
    bad += XQKV_INSTRUCTION_SET_NEON != 5;
    bad += XQKV_NORM_NONE != 0;
    bad += XQKV_NORM_RMS != 1;
    bad += XQKV_EXTENT_WHOLE != 0;
    bad += XQKV_EXTENT_SHARD != 1;
    bad += XQKV_LAYOUT_OUT_IN != 0;
    bad += XQKV_LAYOUT_IN_OUT != 1;
    bad += XQKV_FUSED_ORDER_CONCATENATED != 0;
    bad += XQKV_FUSED_ORDER_PER_HEAD != 1;
    bad += XQKV_MEMORY_HOST != 0;
    bad += XQKV_MEMORY_DEVICE != 1;
    bad += XQKV_OWNERSHIP_COPY != 0;
    bad += XQKV_OWNERSHIP_BORROW != 1;
    bad += XQKV_SPLIT_EVEN != 0;
    bad += XQKV_SPLIT_EXPLICIT != 1;
    bad += XQKV_SPLIT_QUERY != 2;
    bad += XQKV_PROJECTION_FLAG_TENSOR_FLOAT != 1;
    bad += XQKV_PROJECTION_FLAG_BATCH_INVARIANT != 2;
    bad += XQKV_PROJECTION_FLAG_SHARE_REPLICAS != 4;
    bad += XQKV_PLAN_FLAG_TIMED != 1;
    bad += XQKV_FORWARD_FLAG_GATHER_QUERY != 1;
    bad += XQKV_FORWARD_FLAG_GATHER_KEY_VALUE != 2;
    bad += XQKV_FORWARD_FLAG_START != 4;
    bad += XQKV_FORWARD_FLAG_FINISH != 8;
    bad += XQKV_COMM_KIND_ALONE != 1;
    bad += XQKV_COMM_KIND_THREADS != 2;
    bad += XQKV_COMM_KIND_NCCL != 3;
    bad += XQKV_COMM_KIND_COLLECTIVES != 4;
    bad += XQKV_COMM_FLAG_CHECK_CALLS != 1;
    bad += XQKV_COMM_FLAG_WATCHDOG != 2;
    bad += XQKV_PART_QUERY != 1;
    bad += XQKV_PART_KEY != 2;
    bad += XQKV_PART_VALUE != 3;
    bad += XQKV_PART_KEY_VALUE != 4;
    bad += XQKV_PART_QUERY_KEY_VALUE != 5;
    bad += XQKV_KIND_WEIGHT != 1;
    bad += XQKV_KIND_BIAS != 2;
    bad += XQKV_KIND_NORM != 3;
    return bad;
}
