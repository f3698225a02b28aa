//go:build !race

package xqkv_test

const raceEnabled = false
