package xqkv_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

func TestClosedHandlesSaySoAndCloseAgain(t *testing.T) {
	context, projection := small(t)
	update := must(projection.Begin())
	for range [2]int{} {
		for _, handle := range []interface{ Close() error }{context, projection, update} {
			if err := handle.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	same(t, "handles", xqkv.HandleCount(), 0)
	answers := []error{update.Read(xqkv.Checkpoint{Directory: folders[2]})}
	answers = append(answers, update.Clear(0, xqkv.PartKey, xqkv.KindWeight))
	answers = append(answers, update.Put(0, xqkv.PartKey, xqkv.KindWeight, xqkv.Tensor{}))
	answer := func(_ any, err error) { answers = append(answers, err) }
	answer(update.Commit())
	answer(context.Info())
	answer(projection.Begin())
	answer(projection.Shard())
	answer(projection.WeightsVersion())
	answer(projection.Forward(xqkv.Forward{}))
	answer(xqkv.NewProjection(context, smallSpec, xqkv.ProjectionOptions{}))
	answer(new(xqkv.Projection).Shard())
	for number, err := range answers {
		if !errors.Is(err, xqkv.ErrClosed) || !errors.Is(err, xqkv.StatusInvalidHandle) {
			t.Errorf("call %d: %v", number, err)
		}
	}
}

func TestACommittedUpdateIsClosedAndADroppedOneChangesNothing(t *testing.T) {
	_, projection := small(t)
	update := must(projection.Begin())
	if err := update.Clear(0, xqkv.PartQuery, xqkv.KindWeight); err != nil {
		t.Fatal(err)
	}
	must(0, update.Close())
	same(t, "version after a drop", must(projection.WeightsVersion()), 1)
	update = must(projection.Begin())
	must(0, update.Clear(0, xqkv.PartQuery, xqkv.KindWeight))
	same(t, "committed version", must(update.Commit()), 2)
	_, err := update.Commit()
	if !errors.Is(err, xqkv.ErrClosed) {
		t.Error(err)
	}
	call := xqkv.Forward{Decoder: xqkv.NewInput(make([]float32, 3), 1)}
	call.Query = xqkv.NewView(make([]float32, 4))
	_, err = projection.Forward(call)
	holdError(t, "cleared weight", err, xqkv.StatusNotReady, "layer 0")
}

func TestProjectionsOutliveTheirContext(t *testing.T) {
	context, projection := small(t)
	must(0, context.Close())
	query := poisoned(4)
	call := xqkv.Forward{Decoder: xqkv.NewInput([]float32{1, 2, 3}, 1), Query: xqkv.NewView(query)}
	must(projection.Forward(call))
	same(t, "query", query, []float32{1, 2, 3, 6})
}

// Each goroutine's error is of its own call, whatever thread it runs on by then.
func TestGoroutinesChangeThreadsAndKeepTheirErrors(t *testing.T) {
	_, projection := small(t)
	var group sync.WaitGroup
	for number := 0; number < 16; number++ {
		number := number
		group.Add(1)
		go func() {
			defer group.Done()
			rows, query := []float32{float32(number), 1, 2}, poisoned(4)
			good := xqkv.Forward{Decoder: xqkv.NewInput(rows, 1), Query: xqkv.NewView(query)}
			bad := good
			bad.Layer = 100 + number
			for round := 0; round < 200; round++ {
				_, err := projection.Forward(bad)
				runtime.Gosched()
				holdError(t, "wrong layer", err, xqkv.StatusLayerOutOfRange, fmt.Sprint(100+number))
				must(projection.Forward(good))
				if query[0] != float32(number) {
					t.Errorf("%v", query)
				}
			}
		}()
	}
	group.Wait()
}

func TestClosingUnderGoroutinesEndsTheirCallsInOrder(t *testing.T) {
	context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1}))
	projection := must(xqkv.NewProjection(context, smallSpec, xqkv.ProjectionOptions{}))
	closing(t, projection, context)
	call := xqkv.Forward{Decoder: xqkv.NewInput(make([]float32, 3), 1)}
	call.Query = xqkv.NewView(make([]float32, 4))
	var begun, group sync.WaitGroup
	for number := 0; number < 8; number++ {
		begun.Add(1)
		group.Add(1)
		go func() {
			defer group.Done()
			begun.Done()
			for {
				_, err := projection.Forward(call)
				if errors.Is(err, xqkv.ErrClosed) {
					return
				}
				if !errors.Is(err, xqkv.StatusNotReady) {
					t.Error(err)
				}
			}
		}()
	}
	begun.Wait()
	must(0, projection.Close())
	group.Wait()
}

func TestTheCollectorClosesWhatWasDropped(t *testing.T) {
	func() {
		context := must(xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1}))
		projection := must(xqkv.NewProjection(context, smallSpec, xqkv.ProjectionOptions{}))
		must(projection.Begin())
	}()
	eventually(func() bool { return xqkv.HandleCount() == 0 })
	same(t, "handles", xqkv.HandleCount(), 0)
}
