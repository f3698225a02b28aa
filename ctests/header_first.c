/* The layout of every struct, on machines of 64 bits. A line that no longer holds is a change of the ABI: raise
   XQKV_VERSION_ABI, or give the struct a new size that the library tells from the old. */
#include <stddef.h>
#include <xqkv.h>
#include <xqkv.h>

int header_second(void);

#define SIZE(type, bytes) typedef char size_of_##type[sizeof(type) == (bytes) ? 1 : -1]
#define AT(type, field, offset) typedef char type##_##field[offsetof(type, field) == (offset) ? 1 : -1]

SIZE(xqkv_checkpoint, 48);
AT(xqkv_checkpoint, struct_size, 0);
AT(xqkv_checkpoint, convert, 4);
AT(xqkv_checkpoint, directory, 8);
AT(xqkv_checkpoint, tensor_pattern, 16);
AT(xqkv_checkpoint, query_name, 24);
AT(xqkv_checkpoint, key_name, 32);
AT(xqkv_checkpoint, value_name, 40);

SIZE(xqkv_spec, 104);
AT(xqkv_spec, struct_size, 0);
AT(xqkv_spec, weight_dtype, 4);
AT(xqkv_spec, layer_count, 8);
AT(xqkv_spec, decoder_width, 16);
AT(xqkv_spec, encoder_width, 24);
AT(xqkv_spec, query_heads, 32);
AT(xqkv_spec, key_value_heads, 40);
AT(xqkv_spec, head_width, 48);
AT(xqkv_spec, value_head_width, 56);
AT(xqkv_spec, query_bias, 64);
AT(xqkv_spec, key_bias, 68);
AT(xqkv_spec, value_bias, 72);
AT(xqkv_spec, query_scale, 76);
AT(xqkv_spec, key_scale, 80);
AT(xqkv_spec, value_scale, 84);
AT(xqkv_spec, norm, 88);
AT(xqkv_spec, norm_epsilon, 92);
AT(xqkv_spec, norm_rounds_first, 96);

SIZE(xqkv_error, 512);
AT(xqkv_error, status, 0);
AT(xqkv_error, message, 4);

SIZE(xqkv_message, 32);
AT(xqkv_message, data, 0);
AT(xqkv_message, bytes, 8);
AT(xqkv_message, peer, 16);
AT(xqkv_message, is_sent, 24);
AT(xqkv_message, reserved, 28);

SIZE(xqkv_unique_id, 128);
AT(xqkv_unique_id, bytes, 0);

SIZE(xqkv_collectives, 56);
AT(xqkv_collectives, struct_size, 0);
AT(xqkv_collectives, reserved, 4);
AT(xqkv_collectives, all_gather, 8);
AT(xqkv_collectives, broadcast, 16);
AT(xqkv_collectives, exchange, 24);
AT(xqkv_collectives, poll, 32);
AT(xqkv_collectives, abort, 40);
AT(xqkv_collectives, user, 48);

SIZE(xqkv_comm_options, 16);
AT(xqkv_comm_options, struct_size, 0);
AT(xqkv_comm_options, flags, 4);
AT(xqkv_comm_options, deadline_ms, 8);

SIZE(xqkv_comm_info, 40);
AT(xqkv_comm_info, struct_size, 0);
AT(xqkv_comm_info, kind, 4);
AT(xqkv_comm_info, rank, 8);
AT(xqkv_comm_info, rank_count, 16);
AT(xqkv_comm_info, transfers, 24);
AT(xqkv_comm_info, is_poisoned, 32);
AT(xqkv_comm_info, nccl_version, 36);

SIZE(xqkv_context_options, 96);
AT(xqkv_context_options, struct_size, 0);
AT(xqkv_context_options, backend, 4);
AT(xqkv_context_options, device, 8);
AT(xqkv_context_options, thread_count, 12);
AT(xqkv_context_options, instruction_set, 16);
AT(xqkv_context_options, log_level, 20);
AT(xqkv_context_options, log, 24);
AT(xqkv_context_options, log_user, 32);
AT(xqkv_context_options, allocate, 40);
AT(xqkv_context_options, free, 48);
AT(xqkv_context_options, allocator_user, 56);
AT(xqkv_context_options, parallel_for, 64);
AT(xqkv_context_options, parallel_for_user, 72);
AT(xqkv_context_options, cuda_context, 80);
AT(xqkv_context_options, cublaslt_handle, 88);

SIZE(xqkv_context_info, 40);
AT(xqkv_context_info, struct_size, 0);
AT(xqkv_context_info, backend, 4);
AT(xqkv_context_info, device, 8);
AT(xqkv_context_info, thread_count, 12);
AT(xqkv_context_info, instruction_set, 16);
AT(xqkv_context_info, compute_capability, 20);
AT(xqkv_context_info, multiprocessor_count, 24);
AT(xqkv_context_info, driver_version, 28);
AT(xqkv_context_info, cublaslt_version, 32);

SIZE(xqkv_input, 48);
AT(xqkv_input, data, 0);
AT(xqkv_input, rows, 8);
AT(xqkv_input, row_stride, 16);
AT(xqkv_input, row_list, 24);
AT(xqkv_input, buffer_rows, 32);
AT(xqkv_input, dtype, 40);
AT(xqkv_input, reserved, 44);

SIZE(xqkv_view, 96);
AT(xqkv_view, data, 0);
AT(xqkv_view, layer_data, 8);
AT(xqkv_view, row_stride, 16);
AT(xqkv_view, head_stride, 24);
AT(xqkv_view, width_stride, 32);
AT(xqkv_view, layer_stride, 40);
AT(xqkv_view, group_rows, 48);
AT(xqkv_view, group_stride, 56);
AT(xqkv_view, slots, 64);
AT(xqkv_view, slot_count, 72);
AT(xqkv_view, quantization_scale, 80);
AT(xqkv_view, dtype, 88);
AT(xqkv_view, accumulate, 92);

SIZE(xqkv_forward, 472);
AT(xqkv_forward, struct_size, 0);
AT(xqkv_forward, flags, 4);
AT(xqkv_forward, layer, 8);
AT(xqkv_forward, layer_count, 16);
AT(xqkv_forward, decoder, 24);
AT(xqkv_forward, encoder, 72);
AT(xqkv_forward, query, 120);
AT(xqkv_forward, key, 216);
AT(xqkv_forward, value, 312);
AT(xqkv_forward, stream, 408);
AT(xqkv_forward, workspace, 416);
AT(xqkv_forward, workspace_bytes, 424);
AT(xqkv_forward, plan, 432);
AT(xqkv_forward, wait_event, 440);
AT(xqkv_forward, signal_event, 448);
AT(xqkv_forward, encoder_rank_rows, 456);
AT(xqkv_forward, chunk_rows, 464);

SIZE(xqkv_projection_options, 88);
AT(xqkv_projection_options, struct_size, 0);
AT(xqkv_projection_options, split, 4);
AT(xqkv_projection_options, rank, 8);
AT(xqkv_projection_options, rank_count, 16);
AT(xqkv_projection_options, query_head_begin, 24);
AT(xqkv_projection_options, query_head_count, 32);
AT(xqkv_projection_options, key_value_head_begin, 40);
AT(xqkv_projection_options, key_value_head_count, 48);
AT(xqkv_projection_options, layer_begin, 56);
AT(xqkv_projection_options, layer_count, 64);
AT(xqkv_projection_options, comm, 72);
AT(xqkv_projection_options, flags, 80);

SIZE(xqkv_shard, 88);
AT(xqkv_shard, struct_size, 0);
AT(xqkv_shard, query_head_begin, 8);
AT(xqkv_shard, query_head_count, 16);
AT(xqkv_shard, key_value_head_begin, 24);
AT(xqkv_shard, key_value_head_count, 32);
AT(xqkv_shard, layer_begin, 40);
AT(xqkv_shard, layer_count, 48);
AT(xqkv_shard, query_columns, 56);
AT(xqkv_shard, key_columns, 64);
AT(xqkv_shard, value_columns, 72);
AT(xqkv_shard, weight_bytes, 80);

SIZE(xqkv_plan_options, 24);
AT(xqkv_plan_options, struct_size, 0);
AT(xqkv_plan_options, flags, 4);
AT(xqkv_plan_options, alignment_bytes, 8);
AT(xqkv_plan_options, workspace_limit, 16);

SIZE(xqkv_workspace, 32);
AT(xqkv_workspace, struct_size, 0);
AT(xqkv_workspace, reserved, 4);
AT(xqkv_workspace, minimum_bytes, 8);
AT(xqkv_workspace, recommended_bytes, 16);
AT(xqkv_workspace, alignment_bytes, 24);

SIZE(xqkv_stats, 64);
AT(xqkv_stats, struct_size, 0);
AT(xqkv_stats, multiply_adds, 8);
AT(xqkv_stats, padding_multiply_adds, 16);
AT(xqkv_stats, matmuls, 24);
AT(xqkv_stats, weights_version, 32);
AT(xqkv_stats, plans_made, 40);
AT(xqkv_stats, transfers, 48);
AT(xqkv_stats, received_bytes, 56);

SIZE(xqkv_tensor, 96);
AT(xqkv_tensor, struct_size, 0);
AT(xqkv_tensor, dtype, 4);
AT(xqkv_tensor, data, 8);
AT(xqkv_tensor, rows, 16);
AT(xqkv_tensor, columns, 24);
AT(xqkv_tensor, row_stride, 32);
AT(xqkv_tensor, extent, 40);
AT(xqkv_tensor, convert, 44);
AT(xqkv_tensor, layout, 48);
AT(xqkv_tensor, fused_order, 52);
AT(xqkv_tensor, memory, 56);
AT(xqkv_tensor, ownership, 60);
AT(xqkv_tensor, scale, 64);
AT(xqkv_tensor, scale_dtype, 72);
AT(xqkv_tensor, reserved, 76);
AT(xqkv_tensor, scale_block_rows, 80);
AT(xqkv_tensor, scale_block_columns, 88);

int main(void) { return header_second(); }
