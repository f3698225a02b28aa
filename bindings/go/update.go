package xqkv

// #include <xqkv.h>
import "C"

import (
	"fmt"
	"runtime"
	"sync"
)

// Part says which projection a tensor belongs to; Kind what it is to it.
type (
	Part int32
	Kind int32
)

// The parts and kinds.
const (
	Query         Part = C.XQKV_PART_QUERY
	Key           Part = C.XQKV_PART_KEY
	Value         Part = C.XQKV_PART_VALUE
	KeyValue      Part = C.XQKV_PART_KEY_VALUE
	QueryKeyValue Part = C.XQKV_PART_QUERY_KEY_VALUE
	Weight        Kind = C.XQKV_KIND_WEIGHT
	Bias          Kind = C.XQKV_KIND_BIAS
)

// Update is a weight transaction: begin, put or read, commit or close.
type Update struct {
	lock   sync.Mutex
	handle *C.xqkv_update
}

// Begin begins an update; forwards go on undisturbed until it is committed.
func (projection *Projection) Begin() (*Update, error) {
	projection.lock.RLock()
	defer projection.lock.RUnlock()
	if projection.handle == nil {
		return nil, ErrClosed
	}
	var report C.xqkv_error
	update := &Update{}
	if err := failed(C.xqkv_update_begin(projection.handle, &update.handle, &report), &report); err != nil {
		return nil, err
	}
	forget(update)
	return update, nil
}

// Put takes this rank's rows of a tensor [rows, columns] of the uncut layer; a bias has 1 column. They are copied.
func Put[E Element](update *Update, layer int, part Part, kind Kind, elements []E, rows, columns int) error {
	if rows < 0 || columns < 1 || len(elements) != rows*columns {
		return fmt.Errorf("xqkv: %d elements are not [%d, %d]: %w", len(elements), rows, columns, InvalidShape)
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	var tensor C.xqkv_tensor
	C.xqkv_tensor_init(&tensor, C.sizeof_xqkv_tensor)
	tensor.data, tensor.dtype = pinned(&pinner, elements), C.int32_t(dtypeOf[E]())
	tensor.rows, tensor.columns = C.int64_t(rows), C.int64_t(columns)
	return update.with(func(handle *C.xqkv_update, report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_update_put(handle, C.int64_t(layer), C.int32_t(part), C.int32_t(kind), &tensor, report)
	})
}

// Read takes all of this rank's layers from a checkpoint.
func (update *Update) Read(checkpoint Checkpoint) error {
	plain, free := checkpoint.plain()
	defer free()
	return update.with(func(handle *C.xqkv_update, report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_update_read_checkpoint(handle, plain, report)
	})
}

// Commit makes it the projection's weights, all at once, and gives their version.
func (update *Update) Commit() (int64, error) {
	var version C.int64_t
	err := update.with(func(handle *C.xqkv_update, report *C.xqkv_error) C.xqkv_status {
		status := C.xqkv_update_commit(handle, &version, report)
		if status == C.XQKV_STATUS_OK {
			update.handle = nil
		}
		return status
	})
	return int64(version), err
}

// Close abandons what was not committed; a second time does nothing.
func (update *Update) Close() error {
	update.lock.Lock()
	defer update.lock.Unlock()
	var report C.xqkv_error
	handle := update.handle
	update.handle = nil
	return failed(C.xqkv_update_abandon(handle, &report), &report)
}

func (update *Update) with(call func(*C.xqkv_update, *C.xqkv_error) C.xqkv_status) error {
	update.lock.Lock()
	defer update.lock.Unlock()
	if update.handle == nil {
		return ErrClosed
	}
	var report C.xqkv_error
	return failed(call(update.handle, &report), &report)
}
