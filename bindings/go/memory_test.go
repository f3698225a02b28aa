//go:build go1.22

package xqkv_test

import (
	"syscall"
	"testing"
	"unsafe"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

var globalRows, globalQuery = [3]float32{1, 2, 3}, [4]float32{}

func TestMemoryMayBeGlobalOrNotGosAtAll(t *testing.T) {
	_, projection := small(t)
	call := xqkv.Forward{Decoder: xqkv.NewInput(globalRows[:], 1), Query: xqkv.NewView(globalQuery[:])}
	must(projection.Forward(call))
	same(t, "query in a global", globalQuery, [4]float32{1, 2, 3, 6})

	mapped := must(syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE))
	defer syscall.Munmap(mapped)
	call.Query = xqkv.NewView(unsafe.Slice((*float32)(unsafe.Pointer(&mapped[0])), 1024))
	must(projection.Forward(call))
	same(t, "query in mapped memory", mapped[12:16], []byte{0, 0, 0xc0, 0x40})
}

func TestAForwardAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	_, projection := small(t)
	call := xqkv.Forward{Decoder: xqkv.NewInput([]float32{1, 2, 3}, 1)}
	call.Encoder = xqkv.NewInput([]float32{1, 2}, 1)
	call.Query, call.Key = xqkv.NewView(poisoned(4)), xqkv.NewView(poisoned(2))
	call.Value = xqkv.NewView(poisoned(1))
	count := testing.AllocsPerRun(1000, func() { must(projection.Forward(call)) })
	same(t, "allocations of a prefill", count, 0)
}
