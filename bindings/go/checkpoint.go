package xqkv

// #include <xqkv.h>
import "C"

import (
	"encoding/json"
	"runtime"
	"strings"
	"unsafe"
)

// Checkpoint is a Hugging Face folder: config.json, and model.safetensors or its index. Its files
// are untrusted.
type Checkpoint struct {
	Directory string
	// Convert rounds weights of another dtype than the spec's; otherwise they are refused.
	Convert bool
	// TensorPattern names the tensors of a model of no known family, with places for {layer},
	// {part} and {kind}; the spec is the caller's then.
	TensorPattern string
	// QueryName, KeyName and ValueName stand for {part}; empty is "query", "key" and "value".
	QueryName, KeyName, ValueName string
}

// CheckpointReport is a checkpoint held against a spec, tensor by tensor.
type CheckpointReport struct {
	Family string `json:"family"`
	// Used, Missing and Misshaped are the tensors that the spec needs.
	Used      []CheckpointTensor `json:"used"`
	Missing   []CheckpointTensor `json:"missing"`
	Misshaped []CheckpointTensor `json:"misshaped"`
	// Unused are the other tensors of the same attention modules.
	Unused []string `json:"unused"`
}

// CheckpointTensor is a tensor that a spec needs.
type CheckpointTensor struct {
	Name string `json:"name"`
	// Layer is numbered as in Spec, CheckpointLayer as in the checkpoint.
	Layer           int    `json:"layer"`
	CheckpointLayer int    `json:"checkpoint_layer"`
	Part            string `json:"part"`
	Kind            string `json:"kind"`
	// Shape is nil if the tensor is missing.
	Shape       []int `json:"shape"`
	NeededShape []int `json:"needed_shape"`
}

// Report holds the checkpoint against a spec. It reads no weights.
func (checkpoint Checkpoint) Report(spec Spec) (CheckpointReport, error) {
	var report CheckpointReport
	var pinner runtime.Pinner
	defer pinner.Unpin()
	source, err := checkpoint.plain(&pinner)
	if err != nil {
		return report, err
	}
	text, err := reportText(&source, spec.plain())
	if err != nil {
		return report, err
	}
	return report, json.Unmarshal(text, &report)
}

// reportText asks how long the text is, and again should the files have changed meanwhile.
func reportText(source *C.xqkv_checkpoint, spec C.xqkv_spec) ([]byte, error) {
	var text []byte
	for {
		var needed C.int64_t
		at, bytes := (*C.char)(unsafe.Pointer(unsafe.SliceData(text))), C.int64_t(len(text))
		err := called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_checkpoint_report(source, &spec, at, bytes, &needed, report)
		})
		if err == nil && text != nil {
			return text[:needed-1], nil
		}
		if err != nil && needed <= bytes {
			return nil, err
		}
		text = make([]byte, needed)
	}
}

func (checkpoint Checkpoint) plain(pinner *runtime.Pinner) (plain C.xqkv_checkpoint, err error) {
	C.xqkv_checkpoint_init(&plain, C.sizeof_xqkv_checkpoint)
	plain.convert = flag(checkpoint.Convert)
	for _, text := range []struct {
		name, from string
		to         **C.char
	}{
		{"Directory", checkpoint.Directory, &plain.directory},
		{"TensorPattern", checkpoint.TensorPattern, &plain.tensor_pattern},
		{"QueryName", checkpoint.QueryName, &plain.query_name},
		{"KeyName", checkpoint.KeyName, &plain.key_name},
		{"ValueName", checkpoint.ValueName, &plain.value_name},
	} {
		if strings.IndexByte(text.from, 0) >= 0 {
			return plain, refused(StatusInvalidArgument, "%s is %q; it must not hold a zero byte",
				text.name, text.from)
		}
		*text.to = pinnedText(pinner, text.from)
	}
	return plain, nil
}

// pinnedText is a NUL-terminated copy in Go memory, or NULL for an empty text.
func pinnedText(pinner *runtime.Pinner, text string) *C.char {
	if text == "" {
		return nil
	}
	terminated := append([]byte(text), 0)
	pinner.Pin(&terminated[0])
	return (*C.char)(unsafe.Pointer(&terminated[0]))
}
