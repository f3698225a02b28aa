package xqkv_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

var folders = []string{
	"../../examples/whisper", "../../tests/data/bart", "../../tests/data/t5",
	"../../tests/data/mllama",
}

// array is a tensor of a file, widened.
type array struct {
	shape  []int
	values []float32
}

// readArrays reads all tensors of the safetensors files whose names match.
func readArrays(pattern string) map[string]array {
	arrays := map[string]array{}
	for _, path := range must(filepath.Glob(pattern)) {
		readFile(must(os.ReadFile(path)), arrays)
	}
	return arrays
}

func readFile(file []byte, arrays map[string]array) {
	length := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Dtype   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:8+length], &header); err != nil {
		panic(err)
	}
	for name, info := range header {
		bytes := file[8+int(length):][info.Offsets[0]:info.Offsets[1]]
		arrays[name] = array{info.Shape, widened(bytes, info.Dtype)}
	}
}

func widened(bytes []byte, dtype string) []float32 {
	if dtype == "F32" {
		values := make([]float32, len(bytes)/4)
		for at := range values {
			values[at] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*at:]))
		}
		return values
	}
	values := make([]float32, len(bytes)/2)
	for at := range values {
		half := binary.LittleEndian.Uint16(bytes[2*at:])
		if dtype == "BF16" {
			values[at] = xqkv.BFloat16(half).Float32()
		} else {
			values[at] = xqkv.Float16(half).Float32()
		}
	}
	return values
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// poisoned is a slice of NaN, which no projection of these tests gives.
func poisoned(elements int) []float32 {
	slice := make([]float32, elements)
	for at := range slice {
		slice[at] = float32(math.NaN())
	}
	return slice
}

func isPoisoned(slice []float32) bool {
	for _, element := range slice {
		if element == element {
			return false
		}
	}
	return true
}

// closing closes what a test made, and at its end holds that nothing is left.
func closing(t testing.TB, handles ...interface{ Close() error }) {
	t.Cleanup(func() {
		for _, handle := range handles {
			if err := handle.Close(); err != nil {
				t.Error(err)
			}
		}
		if count := xqkv.HandleCount(); count != 0 {
			t.Errorf("%d handles are left", count)
		}
	})
}

var smallSpec = xqkv.Spec{
	WeightDtype: xqkv.DtypeF32, LayerCount: 2, DecoderWidth: 3, EncoderWidth: 2,
	QueryHeads: 2, KeyValueHeads: 1, HeadWidth: 2, ValueHeadWidth: 1, KeyBias: true,
}

// small is a projection whose layer 1 has ten times the weights of its layer 0, all small integers,
// so that every result is exact:
//
//	query = [x, y, z, x+y+z]    key = [a+b+1, a-b+2]    value = [3b]
func small(t testing.TB) (*xqkv.Context, *xqkv.Projection) {
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 2}))
	projection := must(xqkv.NewProjection(context, smallSpec, xqkv.ProjectionOptions{}))
	closing(t, projection, context)
	if version := putSmall(projection); version != 1 {
		t.Fatalf("the first commit is version %d", version)
	}
	return context, projection
}

func putSmall(projection *xqkv.Projection) int64 {
	update := must(projection.Begin())
	defer update.Close()
	for layer, times := range []float32{1, 10} {
		for _, tensor := range smallTensors(times) {
			must(0, update.Put(layer, tensor.part, tensor.kind, tensor.Tensor))
		}
	}
	return must(update.Commit())
}

type partTensor struct {
	part xqkv.Part
	kind xqkv.Kind
	xqkv.Tensor
}

func smallTensors(times float32) []partTensor {
	scaled := func(values ...float32) []float32 {
		for at := range values {
			values[at] *= times
		}
		return values
	}
	query := scaled(1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1)
	return []partTensor{
		{xqkv.PartQuery, xqkv.KindWeight, xqkv.NewTensor(query, 4, 3)},
		{xqkv.PartKey, xqkv.KindWeight, xqkv.NewTensor(scaled(1, 1, 1, -1), 2, 2)},
		{xqkv.PartKey, xqkv.KindBias, xqkv.NewTensor(scaled(1, 2), 2, 1)},
		{xqkv.PartValue, xqkv.KindWeight, xqkv.NewTensor(scaled(0, 3), 1, 2)},
	}
}
