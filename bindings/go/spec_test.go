package xqkv_test

import (
	"strings"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

func TestEveryFieldOfASpecComesFromTheCheckpoint(t *testing.T) {
	same(t, "spec", must(xqkv.ReadSpec(xqkv.Checkpoint{Directory: folders[3]})), xqkv.Spec{
		WeightDtype: xqkv.DtypeBF16, LayerCount: 2, DecoderWidth: 512, EncoderWidth: 512,
		QueryHeads: 8, KeyValueHeads: 2, HeadWidth: 64, ValueHeadWidth: 64,
		QueryScale: 1, KeyScale: 1, ValueScale: 1,
		Norm: xqkv.NormRMS, NormEpsilon: 1e-5, NormRoundsFirst: true,
	})
	whisper := must(xqkv.ReadSpec(xqkv.Checkpoint{Directory: folders[0]}))
	same(t, "biases", []bool{whisper.QueryBias, whisper.KeyBias, whisper.ValueBias},
		[]bool{true, false, true})
}

func TestAShardIsTheSameBeforeAndAfterItIsMade(t *testing.T) {
	spec := xqkv.Spec{
		WeightDtype: xqkv.DtypeF16, LayerCount: 4, DecoderWidth: 10, EncoderWidth: 12,
		QueryHeads: 6, KeyValueHeads: 3, HeadWidth: 5, ValueHeadWidth: 7,
	}
	options := xqkv.ProjectionOptions{
		Split: xqkv.SplitExplicit, QueryHeadBegin: 2, QueryHeadCount: 3,
		KeyValueHeadBegin: 1, KeyValueHeadCount: 2, LayerBegin: 1, LayerCount: 2,
	}
	expected := xqkv.Shard{
		QueryHeadBegin: 2, QueryHeadCount: 3, KeyValueHeadBegin: 1, KeyValueHeadCount: 2,
		LayerBegin: 1, LayerCount: 2, QueryColumns: 15, KeyColumns: 10, ValueColumns: 14,
		WeightBytes: 2 * 2 * (15*10 + (10+14)*12),
	}
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1}))
	projection := must(xqkv.NewProjection(context, spec, options))
	closing(t, projection, context)
	same(t, "cut shard", must(spec.Cut(options)), expected)
	same(t, "held shard", must(projection.Shard()), expected)
	same(t, "version", must(projection.WeightsVersion()), 0)
}

func TestSplitsCutAsTheirNamesSay(t *testing.T) {
	spec := smallSpec
	spec.QueryHeads, spec.KeyValueHeads = 4, 4
	heads := func(options xqkv.ProjectionOptions) [4]int {
		shard := must(spec.Cut(options))
		return [4]int{shard.QueryHeadBegin, shard.QueryHeadCount,
			shard.KeyValueHeadBegin, shard.KeyValueHeadCount}
	}
	same(t, "whole", heads(xqkv.ProjectionOptions{}), [4]int{0, 4, 0, 4})
	even := xqkv.ProjectionOptions{Split: xqkv.SplitEven, Rank: 1, RankCount: 2}
	same(t, "even", heads(even), [4]int{2, 2, 2, 2})
	query := xqkv.ProjectionOptions{Split: xqkv.SplitQuery, Rank: 1, RankCount: 2}
	same(t, "query", heads(query), [4]int{2, 2, 0, 4})
	same(t, "balanced", heads(must(xqkv.Balance(spec, 2, 3))), [4]int{2, 2, 2, 2})
}

func TestScalesMultiplyAfterTheBias(t *testing.T) {
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1}))
	spec := xqkv.Spec{
		WeightDtype: xqkv.DtypeF32, DecoderWidth: 1, EncoderWidth: 1, QueryHeads: 1,
		KeyValueHeads: 1, HeadWidth: 1, QueryBias: true, KeyBias: true, ValueBias: true,
		QueryScale: 2, KeyScale: 3, ValueScale: 4,
	}
	projection := must(xqkv.NewProjection(context, spec, xqkv.ProjectionOptions{}))
	closing(t, projection, context)
	update := must(projection.Begin())
	fused := xqkv.NewTensor([]float32{1, 10, 100}, 3, 1)
	must(0, update.Put(0, xqkv.PartQueryKeyValue, xqkv.KindWeight, fused))
	must(0, update.Put(0, xqkv.PartQueryKeyValue, xqkv.KindBias, fused))
	must(update.Commit())
	one, results := xqkv.NewInput([]float32{1}, 1), poisoned(3)
	must(projection.Forward(xqkv.Forward{Decoder: one, Encoder: one, Query: xqkv.NewView(results),
		Key: xqkv.NewView(results[1:]), Value: xqkv.NewView(results[2:])}))
	same(t, "query, key, value", results, []float32{2 * 2, 3 * 20, 4 * 200})
}

func TestVersionsAndDtypesAreTheHeaders(t *testing.T) {
	same(t, "version", xqkv.Version(), xqkv.HeaderVersion)
	same(t, "number", xqkv.VersionNumber(), xqkv.HeaderVersionNumber)
	if strings.Count(xqkv.HeaderVersion, ".") != 2 {
		t.Error(xqkv.HeaderVersion)
	}
	for dtype, bytes := range map[xqkv.Dtype]int{0: 0, xqkv.DtypeF32: 4, xqkv.DtypeF16: 2} {
		same(t, dtype.String(), dtype.Bytes(), bytes)
	}
	same(t, "name", xqkv.DtypeBF16.String(), "XQKV_DTYPE_BF16")
}

func TestAContextTellsWhatItIs(t *testing.T) {
	options := xqkv.ContextOptions{ThreadCount: 3, InstructionSet: xqkv.InstructionSetPortable}
	context := must(xqkv.NewContext(options))
	closing(t, context)
	same(t, "info", must(context.Info()), xqkv.ContextInfo{Backend: xqkv.BackendHost, ThreadCount: 3,
		InstructionSet: xqkv.InstructionSetPortable})
}
