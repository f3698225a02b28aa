package xqkv

/*
#include <stdlib.h>
#include <xqkv.h>
*/
import "C"

import "unsafe"

// Checkpoint is a Hugging Face folder.
type Checkpoint struct {
	Directory string
	// Convert rounds weights of another dtype than the spec's; otherwise they are refused.
	Convert bool
}

// plain is the struct, and what frees the string that it points to: a C copy, since Go strings have no NUL.
func (checkpoint Checkpoint) plain() (*C.xqkv_checkpoint, func()) {
	var plain C.xqkv_checkpoint
	C.xqkv_checkpoint_init(&plain, C.sizeof_xqkv_checkpoint)
	plain.convert = flag(checkpoint.Convert)
	plain.directory = C.CString(checkpoint.Directory)
	return &plain, func() { C.free(unsafe.Pointer(plain.directory)) }
}
