//go:build !xqkv_static

package xqkv

// #cgo LDFLAGS: -lxqkv
import "C"
