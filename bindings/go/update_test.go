package xqkv_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// decoded is the query of one decoder row on layer 0.
func decoded(projection *xqkv.Projection, rows ...float32) []float32 {
	query := poisoned(must(projection.Shard()).QueryColumns)
	call := xqkv.Forward{Decoder: xqkv.NewInput(rows, 1), Query: xqkv.NewView(query)}
	must(projection.Forward(call))
	return query
}

func TestAnUpdateShowsOnlyWhenCommittedAndKeepsTheRest(t *testing.T) {
	_, projection := small(t)
	update := must(projection.Begin())
	negative := xqkv.NewTensor([]float32{-1, 0, 0, 0, -1, 0, 0, 0, -1, 0, 0, 0}, 4, 3)
	must(0, update.Put(0, xqkv.PartQuery, xqkv.KindWeight, negative))
	same(t, "query before", decoded(projection, 1, 2, 3), []float32{1, 2, 3, 6})
	same(t, "version", must(update.Commit()), 2)
	same(t, "query after", decoded(projection, 1, 2, 3), []float32{-1, -2, -3, 0})
	key, value := poisoned(2), poisoned(1)
	call := xqkv.Forward{Encoder: xqkv.NewInput([]float32{5, 3}, 1)}
	call.Key, call.Value = xqkv.NewView(key), xqkv.NewView(value)
	same(t, "version of a forward", must(projection.Forward(call)).WeightsVersion, 2)
	same(t, "key and value", append(key, value...), []float32{9, 4, 9})
}

func TestTensorsMayBeStridedCutAndConverted(t *testing.T) {
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1}))
	options := xqkv.ProjectionOptions{Rank: 1, RankCount: 2}
	spec := smallSpec
	spec.KeyValueHeads = 2
	projection := must(xqkv.NewProjection(context, spec, options))
	closing(t, projection, context)
	put := func(tensor xqkv.Tensor) {
		update := must(projection.Begin())
		must(0, update.Put(0, xqkv.PartQuery, xqkv.KindWeight, tensor))
		must(update.Commit())
	}
	strided := xqkv.NewTensor([]float32{1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 1, 1, 1}, 4, 3)
	strided.RowStride = 4
	put(strided)
	same(t, "rows of rank 1", decoded(projection, 1, 0, -1), []float32{-2, 0})
	shard := xqkv.NewTensor([]xqkv.BFloat16{0x3f80, 0, 0, 0, 0x4000, 0}, 2, 3)
	shard.Extent, shard.Convert = xqkv.ExtentShard, true
	put(shard)
	same(t, "this rank's own rows", decoded(projection, 3, 4, 5), []float32{3, 8})
	across := xqkv.NewTensor([]float32{1, 4, 7, 1, 0, 2, 5, 8, 1, 0, 3, 6, 9, 1}, 4, 3)
	across.Layout, across.RowStride = xqkv.LayoutInOut, 5
	put(across)
	same(t, "rows of rank 1", decoded(projection, 1, 0, -1), []float32{-2, 0})
}

func TestAPatternNamesTheTensorsOfAnUnknownFamily(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		file := must(os.ReadFile(filepath.Join(folders[2], name)))
		if name == "config.json" {
			file = []byte("{}")
		}
		must(0, os.WriteFile(filepath.Join(folder, name), file, 0o600))
	}
	known := xqkv.Checkpoint{Directory: folders[2]}
	spec := must(xqkv.ReadSpec(known))
	pattern := "decoder.block.{layer}.layer.1.EncDecAttention.{part}.{kind}"
	named := xqkv.Checkpoint{Directory: folder, TensorPattern: pattern, QueryName: "q", KeyName: "k"}
	report := must(named.Report(spec))
	same(t, "tensors found and missing", []int{len(report.Used), len(report.Missing)}, []int{4, 2})
	named.ValueName = "v"
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1}))
	one := must(xqkv.Load(context, spec, xqkv.ProjectionOptions{}, known))
	other := must(xqkv.Load(context, spec, xqkv.ProjectionOptions{}, named))
	closing(t, one, other, context)
	row := make([]float32, spec.DecoderWidth)
	for at := range row {
		row[at] = float32(math.Sin(float64(at)))
	}
	sameBits(t, "query by pattern", decoded(other, row...), decoded(one, row...))
}

func TestAReportListsWhatTheCheckpointHas(t *testing.T) {
	checkpoint := xqkv.Checkpoint{Directory: folders[3]}
	spec := must(xqkv.ReadSpec(checkpoint))
	report := must(checkpoint.Report(spec))
	same(t, "family and counts", []any{report.Family, len(report.Used), len(report.Missing)},
		[]any{"mllama", 10, 0})
	same(t, "numbers", []int{report.Used[5].Layer, report.Used[5].CheckpointLayer}, []int{1, 3})
	same(t, "norm", []string{report.Used[1].Part, report.Used[1].Kind}, []string{"query", "norm"})
	same(t, "shape", report.Used[0].Shape, report.Used[0].NeededShape)
	spec.HeadWidth = 32
	report = must(checkpoint.Report(spec))
	same(t, "misshaped", []int{len(report.Used), len(report.Misshaped)}, []int{2, 8})
	same(t, "needed", report.Misshaped[0].NeededShape, []int{256, 512})
	if len(report.Unused) == 0 {
		t.Error("the output projections are unused")
	}
}

func TestIntegersHaveScales(t *testing.T) {
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1}))
	spec := smallSpec
	spec.WeightDtype = xqkv.DtypeInt8
	projection := must(xqkv.NewProjection(context, spec, xqkv.ProjectionOptions{}))
	closing(t, projection, context)
	integers := []int8{1, 2, 3, -128, 0, 0, 0, 1, 0, 127, -1, 2}
	for _, scales := range [][]float32{{0.5, 1, 2, 4}, {2}} {
		update := must(projection.Begin())
		tensor := xqkv.NewIntegerTensor(integers, scales, 4, 3)
		must(0, update.Put(0, xqkv.PartQuery, xqkv.KindWeight, tensor))
		must(update.Commit())
		wanted := []float32{127 + 4 - 9, -128 * 127, 2, 127*127 - 2 - 6}
		for output := range wanted {
			wanted[output] *= scales[output%len(scales)]
		}
		same(t, "query", decoded(projection, 127, 2, -3), wanted)
	}
	update := must(projection.Begin())
	_, wrong := 0, update.Put(0, xqkv.PartQuery, xqkv.KindWeight, xqkv.NewIntegerTensor(integers, []float32{1, 2}, 4, 3))
	same(t, "two scales of four rows", wrong.(*xqkv.Error).Status, xqkv.StatusInvalidShape)
	must(0, update.Close())
}
