package xqkv

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
)

var checkpoints = []string{"examples/whisper", "tests/data/bart", "tests/data/t5", "tests/data/mllama"}

func folder(name string) string { return filepath.Join("..", "..", name) }

// tensors reads the float32 tensors of a file of inputs and expected results.
func tensors(path string) map[string][]float32 {
	raw, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	length := binary.LittleEndian.Uint64(raw)
	var header map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw[8:8+length], &header); err != nil {
		panic(err)
	}
	data, read := raw[8+length:], map[string][]float32{}
	for name, info := range header {
		bytes := data[info.Offsets[0]:info.Offsets[1]]
		elements := make([]float32, len(bytes)/4)
		for at := range elements {
			elements[at] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*at:]))
		}
		read[name] = elements
	}
	return read
}

// farthest is the largest distance of two slices, relative to the largest element.
func farthest(results, expected []float32) float64 {
	distance, largest := 0.0, 0.0
	for at := range expected {
		distance = math.Max(distance, math.Abs(float64(results[at])-float64(expected[at])))
		largest = math.Max(largest, math.Abs(float64(expected[at])))
		if results[at] != results[at] {
			return math.Inf(1)
		}
	}
	return distance / largest
}
