package xqkv

// #include <xqkv.h>
import "C"

// Shard is what one rank holds.
type Shard struct {
	QueryHeadBegin, QueryHeadCount       int
	KeyValueHeadBegin, KeyValueHeadCount int
	LayerBegin, LayerCount               int
	QueryColumns, KeyColumns             int
	ValueColumns                         int
	WeightBytes                          int64
}

// Split says which heads a rank is to hold; its zero value is the whole.
type Split struct {
	// Rank of RankCount, with shares that differ by at most one head; RankCount 0 is the whole.
	Rank, RankCount int
}

func (split Split) plain(spec *C.xqkv_spec) (*C.xqkv_projection_options, error) {
	var plain C.xqkv_projection_options
	var report C.xqkv_error
	C.xqkv_projection_options_init(&plain, C.sizeof_xqkv_projection_options)
	if split.RankCount == 0 {
		return &plain, nil
	}
	rank, count := C.int64_t(split.Rank), C.int64_t(split.RankCount)
	status := C.xqkv_projection_options_balance(&plain, spec, rank, count, &report)
	return &plain, failed(status, &report)
}

func shardOf(projection *C.xqkv_projection) (Shard, error) {
	var plain C.xqkv_shard
	var report C.xqkv_error
	C.xqkv_shard_init(&plain, C.sizeof_xqkv_shard)
	if err := failed(C.xqkv_projection_get_shard(projection, &plain, &report), &report); err != nil {
		return Shard{}, err
	}
	return Shard{
		QueryHeadBegin: int(plain.query_head_begin), QueryHeadCount: int(plain.query_head_count),
		KeyValueHeadBegin: int(plain.key_value_head_begin), KeyValueHeadCount: int(plain.key_value_head_count),
		LayerBegin: int(plain.layer_begin), LayerCount: int(plain.layer_count),
		QueryColumns: int(plain.query_columns), KeyColumns: int(plain.key_columns),
		ValueColumns: int(plain.value_columns), WeightBytes: int64(plain.weight_bytes),
	}, nil
}
