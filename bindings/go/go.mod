module github.com/xqkv/xqkv/bindings/go

go 1.21
