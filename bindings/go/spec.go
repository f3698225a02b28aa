package xqkv

// #include <xqkv.h>
import "C"

// Spec is the uncut layers; see struct xqkv_spec for each field.
type Spec struct {
	WeightDtype                      Dtype
	LayerCount                       int
	DecoderWidth, EncoderWidth       int
	QueryHeads, KeyValueHeads        int
	HeadWidth, ValueHeadWidth        int
	QueryBias, KeyBias, ValueBias    bool
	QueryScale, KeyScale, ValueScale float32
}

// ReadSpec makes the spec of a checkpoint's configuration.
func ReadSpec(checkpoint Checkpoint) (Spec, error) {
	var plain C.xqkv_spec
	var report C.xqkv_error
	C.xqkv_spec_init(&plain, C.sizeof_xqkv_spec)
	source, free := checkpoint.plain()
	defer free()
	if err := failed(C.xqkv_spec_read_checkpoint(&plain, source, &report), &report); err != nil {
		return Spec{}, err
	}
	return Spec{
		WeightDtype: Dtype(plain.weight_dtype), LayerCount: int(plain.layer_count),
		DecoderWidth: int(plain.decoder_width), EncoderWidth: int(plain.encoder_width),
		QueryHeads: int(plain.query_heads), KeyValueHeads: int(plain.key_value_heads),
		HeadWidth: int(plain.head_width), ValueHeadWidth: int(plain.value_head_width),
		QueryBias: plain.query_bias == 1, KeyBias: plain.key_bias == 1, ValueBias: plain.value_bias == 1,
		QueryScale: float32(plain.query_scale), KeyScale: float32(plain.key_scale), ValueScale: float32(plain.value_scale),
	}, nil
}

func (spec Spec) plain() *C.xqkv_spec {
	var plain C.xqkv_spec
	C.xqkv_spec_init(&plain, C.sizeof_xqkv_spec)
	plain.weight_dtype = C.int32_t(spec.WeightDtype)
	plain.layer_count = C.int64_t(spec.LayerCount)
	plain.decoder_width, plain.encoder_width = C.int64_t(spec.DecoderWidth), C.int64_t(spec.EncoderWidth)
	plain.query_heads, plain.key_value_heads = C.int64_t(spec.QueryHeads), C.int64_t(spec.KeyValueHeads)
	plain.head_width, plain.value_head_width = C.int64_t(spec.HeadWidth), C.int64_t(spec.ValueHeadWidth)
	plain.query_bias, plain.key_bias, plain.value_bias = flag(spec.QueryBias), flag(spec.KeyBias), flag(spec.ValueBias)
	plain.query_scale, plain.key_scale = C.float(spec.QueryScale), C.float(spec.KeyScale)
	plain.value_scale = C.float(spec.ValueScale)
	return &plain
}
