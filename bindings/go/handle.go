package xqkv

// #include <xqkv.h>
import "C"

import (
	"errors"
	"sync"
)

// HandleCount is how many handles are alive in this process: contexts, projections and updates
// that were made and not yet closed.
func HandleCount() int { return int(C.xqkv_handle_count()) }

// owner has one handle. Ending it waits for the calls that run on it, so that the log function is
// let go only when no call is left that could reach it.
type owner[Handle comparable] struct {
	lock   sync.RWMutex
	handle Handle
	logger *logger
}

// use runs a call on the handle; any number may run side by side.
func (owner *owner[Handle]) use(call func(Handle) error) error {
	owner.lock.RLock()
	defer owner.lock.RUnlock()
	var none Handle
	if owner.handle == none {
		return ErrClosed
	}
	return call(owner.handle)
}

// end runs a call that unmakes the handle if it succeeds.
func (owner *owner[Handle]) end(call func(Handle) error) error {
	owner.lock.Lock()
	defer owner.lock.Unlock()
	var none Handle
	if owner.handle == none {
		return ErrClosed
	}
	err := call(owner.handle)
	if err == nil {
		owner.handle = none
		owner.logger.drop()
	}
	return err
}

// close unmakes the handle, unless that was done already.
func (owner *owner[Handle]) close(destroy func(Handle) error) error {
	err := owner.end(destroy)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
