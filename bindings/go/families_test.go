package xqkv_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// family is a fixture: what went into a model's cross-attention, and what came out of it.
type family struct {
	checkpoint xqkv.Checkpoint
	spec       xqkv.Spec
	io         map[string]array
	layers     []layer
}

// layer is one layer's decoder rows, and what is expected of them and of the encoder's.
type layer struct {
	decoder           array
	query, key, value expectation
}

// expectation is a result in f64, how far off an f32 may be, and what the model said.
type expectation struct {
	values, allowed []float64
	model           []float32
}

func families(t *testing.T) map[string]family {
	found := map[string]family{}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "io.safetensors")); err != nil {
			t.Logf("%s is absent", folder)
			continue
		}
		found[filepath.Base(folder)] = familyOf(folder)
	}
	if len(found) < 3 {
		t.Fatalf("only %d families are there", len(found))
	}
	return found
}

// familyOf finds the weights' names in the checkpoint's report.
func familyOf(folder string) family {
	checkpoint := xqkv.Checkpoint{Directory: folder}
	spec := must(xqkv.ReadSpec(checkpoint))
	// What the fixtures have recorded is before mllama's norm.
	spec.Norm, spec.NormEpsilon, spec.NormRoundsFirst = xqkv.NormNone, 0, false
	weights, io := readArrays(folder+"/model*.safetensors"), readArrays(folder+"/io.safetensors")
	names, numbers := map[string]string{}, make([]int, spec.LayerCount)
	for _, tensor := range must(checkpoint.Report(spec)).Used {
		names[fmt.Sprint(tensor.Layer, tensor.Part, tensor.Kind)] = tensor.Name
		numbers[tensor.Layer] = tensor.CheckpointLayer
	}
	family := family{checkpoint, spec, io, nil}
	for at, number := range numbers {
		decoder := io[fmt.Sprintf("layers.%d.decoder", number)]
		expect := func(part string, rows array) expectation {
			weight := weights[names[fmt.Sprint(at, part, "weight")]]
			bias := weights[names[fmt.Sprint(at, part, "bias")]]
			model := io[fmt.Sprintf("layers.%d.%s", number, part)]
			return expected(rows, weight, bias, model.values)
		}
		encoder := io["encoder"]
		family.layers = append(family.layers, layer{decoder,
			expect("query", decoder), expect("key", encoder), expect("value", encoder)})
	}
	return family
}

// expected is rows [n, inner] times weight [outputs, inner] transposed, plus bias, in f64; and the
// bound of xqkv_projection_forward's documentation.
func expected(rows, weight, bias array, model []float32) (result expectation) {
	inner := weight.shape[1]
	unit := math.Pow(2, -24)
	steps := float64(inner+2) * unit
	growth := steps / (1 - steps)
	for row := 0; row < rows.shape[0]; row++ {
		from := rows.values[row*inner:][:inner]
		for output := 0; output < weight.shape[0]; output++ {
			sum, magnitude := 0.0, 0.0
			if bias.values != nil {
				sum, magnitude = float64(bias.values[output]), math.Abs(float64(bias.values[output]))
			}
			for at, by := range weight.values[output*inner:][:inner] {
				product := float64(from[at]) * float64(by)
				sum, magnitude = sum+product, magnitude+math.Abs(product)
			}
			result.values = append(result.values, sum)
			result.allowed = append(result.allowed, growth*magnitude+unit*math.Abs(sum))
		}
	}
	result.model = model
	return result
}

func (expected expectation) hold(t *testing.T, name string, results []float32) {
	t.Helper()
	if len(results) != len(expected.values) || len(results) != len(expected.model) {
		t.Fatalf("%s: %d results, %d expected, %d of the model", name, len(results),
			len(expected.values), len(expected.model))
	}
	for at, result := range results {
		for _, right := range []float64{expected.values[at], float64(expected.model[at])} {
			allowed := expected.allowed[at] + math.Pow(2, -24)*math.Abs(right)
			if !(math.Abs(float64(result)-right) <= allowed) {
				t.Fatalf("%s: element %d is %g, not %g within %g", name, at, result, right, allowed)
			}
		}
	}
}

// outputs are whole layers' results, to which each rank adds its heads.
type outputs struct{ query, key, value []float32 }

func TestRanksTogetherProjectWhatTheModelDid(t *testing.T) {
	for name, family := range families(t) {
		for _, rankCount := range []int{1, 2, 3, 5} {
			t.Run(fmt.Sprintf("%s on %d ranks", name, rankCount), func(t *testing.T) {
				family.holdOn(t, rankCount)
			})
		}
	}
}

func (family family) holdOn(t *testing.T, rankCount int) {
	context := must(xqkv.NewContext(xqkv.ContextOptions{}))
	closing(t, context)
	results, filled := family.poisoned(), family.poisoned()
	for rank := 0; rank < rankCount; rank++ {
		options := must(xqkv.Balance(family.spec, rank, rankCount))
		projection := must(xqkv.Load(context, family.spec, options, family.checkpoint))
		begin := must(projection.Shard()).QueryHeadBegin * family.spec.HeadWidth
		for number := range family.layers {
			family.prefill(t, projection, number, results[number])
			family.decode(t, projection, number, results[number].query[begin:])
		}
		family.fill(t, projection, filled)
		must(0, projection.Close())
	}
	for number, layer := range family.layers {
		layer.query.hold(t, fmt.Sprint("query of layer ", number), results[number].query)
		layer.key.hold(t, fmt.Sprint("key of layer ", number), results[number].key)
		layer.value.hold(t, fmt.Sprint("value of layer ", number), results[number].value)
		sameBits(t, "key of a cache fill", filled[number].key, results[number].key)
		sameBits(t, "value of a cache fill", filled[number].value, results[number].value)
	}
}

func (family family) poisoned() (whole []outputs) {
	for _, layer := range family.layers {
		whole = append(whole, outputs{poisoned(len(layer.query.values)),
			poisoned(len(layer.key.values)), poisoned(len(layer.value.values))})
	}
	return whole
}

// into is a view of one rank's heads among those of the whole layer.
func into(whole []float32, headBegin, heads, width int) xqkv.View {
	view := xqkv.NewView(whole[headBegin*width:])
	view.RowStride = heads * width
	return view
}

func (family family) encoder() xqkv.Input {
	encoder := family.io["encoder"]
	return xqkv.NewInput(encoder.values, encoder.shape[0])
}

// keyValue adds the encoder and its views to a call.
func (family family) keyValue(call *xqkv.Forward, shard xqkv.Shard, to outputs) {
	heads, begin, width := family.spec.KeyValueHeads, shard.KeyValueHeadBegin, family.spec.HeadWidth
	call.Encoder = family.encoder()
	call.Key, call.Value = into(to.key, begin, heads, width), into(to.value, begin, heads, width)
}

func (family family) prefill(t *testing.T, on *xqkv.Projection, number int, to outputs) {
	spec, shard, decoder := family.spec, must(on.Shard()), family.layers[number].decoder
	call := xqkv.Forward{Layer: number, Decoder: xqkv.NewInput(decoder.values, decoder.shape[0])}
	call.Query = into(to.query, shard.QueryHeadBegin, spec.QueryHeads, spec.HeadWidth)
	family.keyValue(&call, shard, to)
	stats := must(on.Forward(call))
	necessary := decoder.shape[0] * shard.QueryColumns * spec.DecoderWidth
	necessary += call.Encoder.Rows * (shard.KeyColumns + shard.ValueColumns) * spec.EncoderWidth
	if stats.MultiplyAdds != int64(necessary) || stats.Matmuls != 3 {
		t.Errorf("prefill executed %+v, %d multiply-adds are necessary", stats, necessary)
	}
}

// decode projects the first row alone.
func (family family) decode(t *testing.T, on *xqkv.Projection, number int, prefilled []float32) {
	columns := must(on.Shard()).QueryColumns
	query := poisoned(columns)
	step := xqkv.Forward{Layer: number, Query: xqkv.NewView(query)}
	step.Decoder = xqkv.NewInput(family.layers[number].decoder.values, 1)
	stats := must(on.Forward(step))
	sameBits(t, "query of a decode step", query, prefilled[:columns])
	if stats.MultiplyAdds != int64(columns*family.spec.DecoderWidth) || stats.Matmuls != 1 {
		t.Errorf("a decode step executed %+v", stats)
	}
}

// fill projects the encoder's rows for all layers in one call.
func (family family) fill(t *testing.T, on *xqkv.Projection, to []outputs) {
	shard, layers, rows := must(on.Shard()), len(to), family.encoder().Rows
	key, value := poisoned(layers*rows*shard.KeyColumns), poisoned(layers*rows*shard.ValueColumns)
	call := xqkv.Forward{LayerCount: layers, Encoder: family.encoder()}
	call.Key, call.Value = xqkv.NewView(key), xqkv.NewView(value)
	if stats := must(on.Forward(call)); stats.Matmuls != int64(2*layers) {
		t.Errorf("a cache fill ran %d matmuls", stats.Matmuls)
	}
	begin, heads := shard.KeyValueHeadBegin*family.spec.HeadWidth, family.spec.KeyValueHeads
	for number := range to {
		for row := 0; row < rows; row++ {
			at := row*heads*family.spec.HeadWidth + begin
			from := number*rows + row
			copy(to[number].key[at:], key[from*shard.KeyColumns:][:shard.KeyColumns])
			copy(to[number].value[at:], value[from*shard.ValueColumns:][:shard.ValueColumns])
		}
	}
}

func sameBits(t *testing.T, name string, left, right []float32) {
	t.Helper()
	for at := range right {
		if math.Float32bits(left[at]) != math.Float32bits(right[at]) {
			t.Fatalf("%s: element %d is %g, not %g", name, at, left[at], right[at])
		}
	}
}
