package xqkv

// #include <xqkv.h>
import "C"

import (
	"runtime"
	"sync"
)

// Projection is this rank's shard of Wq, Wk and Wv. Any goroutine may use it, several at once.
type Projection struct {
	lock   sync.RWMutex
	handle *C.xqkv_projection
	spec   Spec
	shard  Shard
}

// NewProjection makes a projection without weights.
func NewProjection(context *Context, spec Spec, split Split) (*Projection, error) {
	var report C.xqkv_error
	plain := spec.plain()
	options, err := split.plain(plain)
	if err != nil {
		return nil, err
	}
	projection := &Projection{spec: spec}
	status := C.xqkv_projection_create(context.handle, plain, options, &projection.handle, &report)
	runtime.KeepAlive(context)
	if err := failed(status, &report); err != nil {
		return nil, err
	}
	forget(projection)
	projection.shard, err = shardOf(projection.handle)
	return projection, err
}

// Load makes a projection with this rank's weights of a checkpoint.
func Load(context *Context, spec Spec, split Split, checkpoint Checkpoint) (*Projection, error) {
	projection, err := NewProjection(context, spec, split)
	if err != nil {
		return nil, err
	}
	update, err := projection.Begin()
	if err == nil {
		defer update.Close()
		err = update.Read(checkpoint)
	}
	if err == nil {
		_, err = update.Commit()
	}
	if err != nil {
		projection.Close()
		return nil, err
	}
	return projection, nil
}

// Shard tells what this rank holds.
func (projection *Projection) Shard() Shard { return projection.shard }

// Forward projects Q from decoder rows if there are any, K and V from encoder rows if there are any.
func (projection *Projection) Forward(call Forward) (Stats, error) {
	projection.lock.RLock()
	defer projection.lock.RUnlock()
	if projection.handle == nil {
		return Stats{}, ErrClosed
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	plain, err := call.plain(projection, &pinner)
	if err != nil {
		return Stats{}, err
	}
	var report C.xqkv_error
	var stats C.xqkv_stats
	C.xqkv_stats_init(&stats, C.sizeof_xqkv_stats)
	status := C.xqkv_projection_forward(projection.handle, plain, &stats, &report)
	return Stats{int64(stats.multiply_adds), int64(stats.weights_version)}, failed(status, &report)
}

// Close unmakes the handle; a second time does nothing.
func (projection *Projection) Close() error {
	projection.lock.Lock()
	defer projection.lock.Unlock()
	var report C.xqkv_error
	handle := projection.handle
	projection.handle = nil
	return failed(C.xqkv_projection_destroy(handle, &report), &report)
}
