package xqkv_test

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// lines is a log that is kept.
type lines struct {
	lock   sync.Mutex
	levels []xqkv.LogLevel
	text   []string
}

// grow makes the stack move, when Go looks at every pointer on it.
func grow(depth int) int {
	var frame [256]byte
	if depth == 0 {
		return int(frame[0])
	}
	return grow(depth-1) + int(frame[depth])
}

func (lines *lines) add(level xqkv.LogLevel, message string) {
	lines.lock.Lock()
	defer lines.lock.Unlock()
	grow(200)
	lines.levels, lines.text = append(lines.levels, level), append(lines.text, message)
}

func TestTheLogReachesTheFunctionOfItsContext(t *testing.T) {
	var first, second lines
	options := xqkv.ContextOptions{Backend: xqkv.BackendHost, ThreadCount: 1, LogLevel: xqkv.LogLevelDebug, Log: first.add}
	one := must(xqkv.NewContext(options))
	options.Log, options.ThreadCount = second.add, 2
	two := must(xqkv.NewContext(options))
	closing(t, one, two)
	for name, lines := range map[string]*lines{"1 thread": &first, "2 threads": &second} {
		if len(lines.text) == 0 || lines.levels[0] != xqkv.LogLevelInfo {
			t.Fatalf("%s: %v %q", name, lines.levels, lines.text)
		}
		if !strings.Contains(lines.text[0], name) {
			t.Errorf("%q does not say %s", lines.text[0], name)
		}
	}
}

func TestProjectionsLogAfterTheirContextIsClosed(t *testing.T) {
	var log lines
	options := xqkv.ContextOptions{Backend: xqkv.BackendHost, ThreadCount: 1, LogLevel: xqkv.LogLevelInfo, Log: log.add}
	context := must(xqkv.NewContext(options))
	projection := must(xqkv.NewProjection(context, smallSpec, xqkv.ProjectionOptions{}))
	closing(t, projection, context)
	must(0, context.Close())
	before := len(log.text)
	must(must(projection.Begin()).Commit())
	same(t, "lines", log.text[before:], []string{"projection: weights version 1 committed"})
}

func TestTheLogIsSilentAtALowerLevel(t *testing.T) {
	var log lines
	closing(t, must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1, Log: log.add})))
	same(t, "log", log.text, []string{})
}

// collected is a log function, and whether it was let go.
func collected() (xqkv.LogFunc, func() bool) {
	log, gone := new(lines), new(atomic.Bool)
	runtime.SetFinalizer(log, func(*lines) { gone.Store(true) })
	return log.add, gone.Load
}

// eventually is whether it comes true while the collector runs.
func eventually(isTrue func() bool) bool {
	for round := 0; round < 1000 && !isTrue(); round++ {
		runtime.GC()
		runtime.Gosched()
	}
	return isTrue()
}

func TestTheFunctionIsKeptUntilTheLastHandleIsClosed(t *testing.T) {
	log, gone := collected()
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1, Log: log}))
	log = nil
	projection := must(xqkv.NewProjection(context, smallSpec, xqkv.ProjectionOptions{}))
	update := must(projection.Begin())
	for _, handle := range []interface{ Close() error }{context, projection, update} {
		for round := 0; round < 3; round++ {
			runtime.GC()
		}
		if gone() {
			t.Fatal("let go too early")
		}
		must(0, handle.Close())
	}
	same(t, "let go", eventually(gone), true)
}

func TestTheFunctionOfAContextThatFailedIsLetGo(t *testing.T) {
	log, gone := collected()
	_, err := xqkv.NewContext(xqkv.ContextOptions{ThreadCount: -1, Log: log})
	holdError(t, "threads", err, xqkv.StatusInvalidArgument, "thread_count")
	log = nil
	same(t, "let go", eventually(gone), true)
}
