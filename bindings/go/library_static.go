//go:build xqkv_static

package xqkv

// #cgo LDFLAGS: -l:libxqkv.a -lpthread -ldl -lm
import "C"
