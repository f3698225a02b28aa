package xqkv

// #include <xqkv.h>
import "C"

import "runtime"

// Part is which of the three projections a tensor belongs to.
type Part int32

// The parts, and the two fused ones.
const (
	PartQuery         Part = C.XQKV_PART_QUERY
	PartKey           Part = C.XQKV_PART_KEY
	PartValue         Part = C.XQKV_PART_VALUE
	PartKeyValue      Part = C.XQKV_PART_KEY_VALUE
	PartQueryKeyValue Part = C.XQKV_PART_QUERY_KEY_VALUE
)

// Kind is what a tensor is to its part.
type Kind int32

// The kinds; a norm is of query or of key, and has HeadWidth rows.
const (
	KindWeight Kind = C.XQKV_KIND_WEIGHT
	KindBias   Kind = C.XQKV_KIND_BIAS
	KindNorm   Kind = C.XQKV_KIND_NORM
)

// Update is a weight transaction: begin, put tensors or read a checkpoint, then Commit, or Close to
// drop it. First load and hot swap are the same thing.
type Update struct{ owner owner[*C.xqkv_update] }

// Begin begins an update; forwards go on undisturbed until it is committed. One that is dropped
// without Commit or Close is closed by the garbage collector; do not count on it.
func (projection *Projection) Begin() (*Update, error) {
	update := &Update{}
	err := projection.owner.use(func(handle *C.xqkv_projection) error {
		update.owner.logger = projection.owner.logger.keep()
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_update_begin(handle, &update.owner.handle, report)
		})
	})
	if err != nil {
		update.owner.logger.drop()
		return nil, err
	}
	runtime.SetFinalizer(update, func(dropped *Update) { _ = dropped.Close() })
	return update, nil
}

// Put takes this rank's rows of one tensor of one layer; they are copied.
func (update *Update) Put(layer int, part Part, kind Kind, tensor Tensor) error {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	plain, err := tensor.plain(kind, &pinner)
	if err != nil {
		return err
	}
	return update.call(func(handle *C.xqkv_update, report *C.xqkv_error) C.xqkv_status {
		number, part, kind := C.int64_t(layer), C.int32_t(part), C.int32_t(kind)
		return C.xqkv_update_put(handle, number, part, kind, &plain, report)
	})
}

// Clear makes the commit remove a tensor of one layer, instead of keeping it as it was.
func (update *Update) Clear(layer int, part Part, kind Kind) error {
	return update.call(func(handle *C.xqkv_update, report *C.xqkv_error) C.xqkv_status {
		number, part, kind := C.int64_t(layer), C.int32_t(part), C.int32_t(kind)
		return C.xqkv_update_clear(handle, number, part, kind, report)
	})
}

// Read takes all of this rank's layers from a checkpoint, and reads no other rank's bytes.
func (update *Update) Read(checkpoint Checkpoint) error {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	source, err := checkpoint.plain(&pinner)
	if err != nil {
		return err
	}
	return update.call(func(handle *C.xqkv_update, report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_update_read_checkpoint(handle, &source, report)
	})
}

// Commit makes the update the projection's weights, all at once, and is their version. It closes
// the update, unless it fails: then it can be made again.
func (update *Update) Commit() (int64, error) {
	var version C.int64_t
	err := update.owner.end(func(handle *C.xqkv_update) error {
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_update_commit(handle, &version, report)
		})
	})
	return int64(version), err
}

// Close drops what was not committed; a second time, or after Commit, it does nothing.
func (update *Update) Close() error {
	return update.owner.close(func(handle *C.xqkv_update) error {
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_update_abandon(handle, report)
		})
	})
}

func (update *Update) call(call func(*C.xqkv_update, *C.xqkv_error) C.xqkv_status) error {
	return update.owner.use(func(handle *C.xqkv_update) error {
		return called(func(report *C.xqkv_error) C.xqkv_status { return call(handle, report) })
	})
}
