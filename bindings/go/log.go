package xqkv

// #include <xqkv.h>
import "C"

import (
	"runtime/cgo"
	"sync/atomic"
)

// LogLevel is how much a line of the log matters.
type LogLevel int32

// The levels, from what matters most.
const (
	LogLevelError   LogLevel = C.XQKV_LOG_LEVEL_ERROR
	LogLevelWarning LogLevel = C.XQKV_LOG_LEVEL_WARNING
	LogLevelInfo    LogLevel = C.XQKV_LOG_LEVEL_INFO
	LogLevelDebug   LogLevel = C.XQKV_LOG_LEVEL_DEBUG
)

// LogFunc receives a line of the log, from any goroutine that calls the library, also from two at
// once. It must not call the library, and must not panic: that would unwind through the library.
type LogFunc func(level LogLevel, message string)

// logger keeps the engine's function reachable from C for as long as a context, or a projection
// or update that came of it, may call it. A nil logger is silent.
type logger struct {
	number cgo.Handle
	users  atomic.Int64
}

// newLogger has one user.
func newLogger(log LogFunc) *logger {
	if log == nil {
		return nil
	}
	logger := &logger{number: cgo.NewHandle(log)}
	return logger.keep()
}

func (logger *logger) user() C.uintptr_t {
	if logger == nil {
		return 0
	}
	return C.uintptr_t(logger.number)
}

func (logger *logger) keep() *logger {
	if logger != nil {
		logger.users.Add(1)
	}
	return logger
}

func (logger *logger) drop() {
	if logger != nil && logger.users.Add(-1) == 0 {
		logger.number.Delete()
	}
}

//export xqkvLogLine
func xqkvLogLine(level C.int32_t, message *C.char, user C.uintptr_t) {
	cgo.Handle(user).Value().(LogFunc)(LogLevel(level), C.GoString(message))
}
