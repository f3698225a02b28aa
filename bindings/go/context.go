package xqkv

// #include <xqkv.h>
import "C"

// Context is the host's threads. Any goroutine may use it; projections outlive it.
type Context struct{ handle *C.xqkv_context }

// ContextOptions says what to make a context from; zero is the default everywhere.
type ContextOptions struct {
	// ThreadCount is how many threads work on one call, the caller's included; 0 is one for each CPU.
	ThreadCount int
}

// NewContext starts the threads.
func NewContext(options ContextOptions) (*Context, error) {
	var plain C.xqkv_context_options
	var report C.xqkv_error
	C.xqkv_context_options_init(&plain, C.sizeof_xqkv_context_options)
	plain.backend = C.XQKV_BACKEND_HOST
	plain.thread_count = C.int32_t(options.ThreadCount)
	context := &Context{}
	status := C.xqkv_context_create(&plain, &context.handle, &report)
	if err := failed(status, &report); err != nil {
		return nil, err
	}
	forget(context)
	return context, nil
}

// ThreadCount is how many threads work on one call.
func (context *Context) ThreadCount() (int, error) {
	var info C.xqkv_context_info
	var report C.xqkv_error
	C.xqkv_context_info_init(&info, C.sizeof_xqkv_context_info)
	status := C.xqkv_context_get_info(context.handle, &info, &report)
	return int(info.thread_count), failed(status, &report)
}

// Close unmakes the handle; a second time does nothing.
func (context *Context) Close() error {
	var report C.xqkv_error
	handle := context.handle
	context.handle = nil
	return failed(C.xqkv_context_destroy(handle, &report), &report)
}
