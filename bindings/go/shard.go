package xqkv

// #include <xqkv.h>
import "C"

// Shard is what one rank holds: which heads and layers of the uncut whole, and what follows.
type Shard struct {
	QueryHeadBegin, QueryHeadCount       int
	KeyValueHeadBegin, KeyValueHeadCount int
	LayerBegin, LayerCount               int
	// QueryColumns, KeyColumns and ValueColumns are heads times their width.
	QueryColumns, KeyColumns, ValueColumns int
	// WeightBytes counts weights in the spec's dtype and biases in f32, of all layers.
	WeightBytes int64
}

func blankShard() (plain C.xqkv_shard) {
	C.xqkv_shard_init(&plain, C.sizeof_xqkv_shard)
	return plain
}

func shardOf(plain *C.xqkv_shard) Shard {
	return Shard{
		QueryHeadBegin: int(plain.query_head_begin), QueryHeadCount: int(plain.query_head_count),
		KeyValueHeadBegin: int(plain.key_value_head_begin),
		KeyValueHeadCount: int(plain.key_value_head_count),
		LayerBegin:        int(plain.layer_begin), LayerCount: int(plain.layer_count),
		QueryColumns: int(plain.query_columns), KeyColumns: int(plain.key_columns),
		ValueColumns: int(plain.value_columns), WeightBytes: int64(plain.weight_bytes),
	}
}
