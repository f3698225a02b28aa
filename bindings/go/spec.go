package xqkv

// #include <xqkv.h>
import "C"

import "runtime"

// Norm is what is done to each head of Q and of K after its bias.
type Norm int32

// The norms: none, or root mean square with a weight for Q and one for K.
const (
	NormNone Norm = C.XQKV_NORM_NONE
	NormRMS  Norm = C.XQKV_NORM_RMS
)

// Spec is the uncut cross-attention layers of a model, as its configuration gives them. All layers
// have the same sizes.
type Spec struct {
	// WeightDtype is what the weights are kept and multiplied in; sums are in f32.
	WeightDtype Dtype
	// LayerCount counts layers that have cross-attention, numbered from 0; 0 is 1.
	LayerCount int
	// DecoderWidth and EncoderWidth are columns of the hidden states.
	DecoderWidth, EncoderWidth int
	// QueryHeads is a multiple of KeyValueHeads; either may be 0.
	QueryHeads, KeyValueHeads int
	// HeadWidth is columns of a head of Q and K, ValueHeadWidth of V; 0 is the same.
	HeadWidth, ValueHeadWidth int
	// QueryBias, KeyBias and ValueBias tell which biases exist.
	QueryBias, KeyBias, ValueBias bool
	// QueryScale, KeyScale and ValueScale multiply after the bias; 0 is 1.
	QueryScale, KeyScale, ValueScale float32
	// Norm, NormEpsilon and NormRoundsFirst are about heads of Q and K.
	Norm            Norm
	NormEpsilon     float32
	NormRoundsFirst bool
}

// ReadSpec is the spec of a checkpoint's configuration. It reads no weights.
func ReadSpec(checkpoint Checkpoint) (Spec, error) {
	plain := Spec{}.plain()
	var pinner runtime.Pinner
	defer pinner.Unpin()
	source, err := checkpoint.plain(&pinner)
	if err != nil {
		return Spec{}, err
	}
	err = called(func(report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_spec_read_checkpoint(&plain, &source, report)
	})
	if err != nil {
		return Spec{}, err
	}
	return specOf(&plain), nil
}

// Check refuses a spec that no projection can be made of.
func (spec Spec) Check() error {
	plain := spec.plain()
	return called(func(report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_spec_check(&plain, report)
	})
}

// Cut is what a rank holds of the spec: heads, layers and bytes.
func (spec Spec) Cut(options ProjectionOptions) (Shard, error) {
	whole, part, shard := spec.plain(), options.plain(), blankShard()
	err := called(func(report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_spec_cut(&whole, &part, &shard, report)
	})
	if err != nil {
		return Shard{}, err
	}
	return shardOf(&shard), nil
}

func (spec Spec) plain() (plain C.xqkv_spec) {
	C.xqkv_spec_init(&plain, C.sizeof_xqkv_spec)
	plain.weight_dtype, plain.layer_count = C.int32_t(spec.WeightDtype), C.int64_t(spec.LayerCount)
	plain.decoder_width = C.int64_t(spec.DecoderWidth)
	plain.encoder_width = C.int64_t(spec.EncoderWidth)
	plain.query_heads = C.int64_t(spec.QueryHeads)
	plain.key_value_heads = C.int64_t(spec.KeyValueHeads)
	plain.head_width = C.int64_t(spec.HeadWidth)
	plain.value_head_width = C.int64_t(spec.ValueHeadWidth)
	plain.query_bias, plain.key_bias = flag(spec.QueryBias), flag(spec.KeyBias)
	plain.value_bias = flag(spec.ValueBias)
	plain.query_scale, plain.key_scale = C.float(spec.QueryScale), C.float(spec.KeyScale)
	plain.value_scale = C.float(spec.ValueScale)
	plain.norm, plain.norm_epsilon = C.int32_t(spec.Norm), C.float(spec.NormEpsilon)
	plain.norm_rounds_first = flag(spec.NormRoundsFirst)
	return plain
}

func specOf(plain *C.xqkv_spec) Spec {
	return Spec{
		WeightDtype: Dtype(plain.weight_dtype), LayerCount: int(plain.layer_count),
		DecoderWidth: int(plain.decoder_width), EncoderWidth: int(plain.encoder_width),
		QueryHeads: int(plain.query_heads), KeyValueHeads: int(plain.key_value_heads),
		HeadWidth: int(plain.head_width), ValueHeadWidth: int(plain.value_head_width),
		QueryBias: plain.query_bias != 0, KeyBias: plain.key_bias != 0,
		ValueBias:  plain.value_bias != 0,
		QueryScale: float32(plain.query_scale), KeyScale: float32(plain.key_scale),
		ValueScale: float32(plain.value_scale),
		Norm:       Norm(plain.norm), NormEpsilon: float32(plain.norm_epsilon),
		NormRoundsFirst: plain.norm_rounds_first != 0,
	}
}
