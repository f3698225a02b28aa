package xqkv

/*
#include <xqkv.h>

extern void xqkvLogLine(int32_t level, char *message, uintptr_t user);

// The user is a number and not an address; it must not stand in a Go pointer, so it becomes a
// pointer only on this side.
static void log_line(int32_t level, const char *message, void *user) {
	xqkvLogLine(level, (char *)message, (uintptr_t)user);
}

static xqkv_status context_create(const xqkv_context_options *options, uintptr_t user,
                                  xqkv_context **context, xqkv_error *error) {
	xqkv_context_options copy = *options;
	copy.log = user ? log_line : NULL;
	copy.log_user = (void *)user;
	return xqkv_context_create(&copy, context, error);
}
*/
import "C"

import "runtime"

// Backend is where a context runs.
type Backend int32

// The backends. A CUDA context tells about its device; a slice is in the host's memory, so calls on
// it have nothing to run on.
const (
	BackendAuto Backend = C.XQKV_BACKEND_AUTO
	BackendHost Backend = C.XQKV_BACKEND_HOST
	BackendCUDA Backend = C.XQKV_BACKEND_CUDA
)

// InstructionSet is which vector instructions the host's kernels use.
type InstructionSet int32

// The instruction sets. Results of the portable one are a class of their own, and so are those of
// bfloat16 rows times bfloat16 weights with AVX-512's dot products.
const (
	InstructionSetAuto       InstructionSet = C.XQKV_INSTRUCTION_SET_AUTO
	InstructionSetPortable   InstructionSet = C.XQKV_INSTRUCTION_SET_PORTABLE
	InstructionSetAVX2       InstructionSet = C.XQKV_INSTRUCTION_SET_AVX2
	InstructionSetAVX512     InstructionSet = C.XQKV_INSTRUCTION_SET_AVX512
	InstructionSetAVX512BF16 InstructionSet = C.XQKV_INSTRUCTION_SET_AVX512_BF16
	InstructionSetNEON       InstructionSet = C.XQKV_INSTRUCTION_SET_NEON
)

// ContextOptions is what to make a context from; zero is the default everywhere.
type ContextOptions struct {
	Backend Backend
	// Device is the CUDA device; 0 on the host.
	Device int32
	// ThreadCount is how many threads work on one call, the caller's included; 0 is one for each
	// CPU that the process may use.
	ThreadCount    int32
	InstructionSet InstructionSet
	// Log receives lines of LogLevel and of all levels that matter more; 0 is LogLevelWarning.
	Log      LogFunc
	LogLevel LogLevel
}

// Context is one backend on one device. Any goroutine may use it, and ranks of one process may
// share one. Projections keep what they need of it, so it may be closed before them.
type Context struct{ owner owner[*C.xqkv_context] }

// NewContext starts the host's threads. One that is dropped without Close is closed by the garbage
// collector at a time of its own choosing; do not count on it.
func NewContext(options ContextOptions) (*Context, error) {
	if err := ensureVersion(); err != nil {
		return nil, err
	}
	plain, context := options.plain(), &Context{}
	context.owner.logger = newLogger(options.Log)
	user := context.owner.logger.user()
	err := called(func(report *C.xqkv_error) C.xqkv_status {
		return C.context_create(&plain, user, &context.owner.handle, report)
	})
	if err != nil {
		context.owner.logger.drop()
		return nil, err
	}
	runtime.SetFinalizer(context, func(dropped *Context) { _ = dropped.Close() })
	return context, nil
}

func (options *ContextOptions) plain() (plain C.xqkv_context_options) {
	C.xqkv_context_options_init(&plain, C.sizeof_xqkv_context_options)
	plain.backend, plain.device = C.int32_t(options.Backend), C.int32_t(options.Device)
	plain.thread_count = C.int32_t(options.ThreadCount)
	plain.instruction_set = C.int32_t(options.InstructionSet)
	plain.log_level = C.int32_t(options.LogLevel)
	return plain
}

// ContextInfo is what a context turned out to be; nothing is AUTO any more.
type ContextInfo struct {
	Backend        Backend
	Device         int32
	ThreadCount    int32
	InstructionSet InstructionSet
	// Of a CUDA device, otherwise 0: 90 is capability 9.0; versions are as the vendor numbers them.
	ComputeCapability, MultiprocessorCount, DriverVersion int32
	CublasLtVersion                                       int64
}

// Info tells what the context turned out to be.
func (context *Context) Info() (ContextInfo, error) {
	var plain C.xqkv_context_info
	C.xqkv_context_info_init(&plain, C.sizeof_xqkv_context_info)
	err := context.owner.use(func(handle *C.xqkv_context) error {
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_context_get_info(handle, &plain, report)
		})
	})
	if err != nil {
		return ContextInfo{}, err
	}
	return ContextInfo{
		Backend: Backend(plain.backend), Device: int32(plain.device),
		ThreadCount:    int32(plain.thread_count),
		InstructionSet: InstructionSet(plain.instruction_set),

		ComputeCapability:   int32(plain.compute_capability),
		MultiprocessorCount: int32(plain.multiprocessor_count),
		DriverVersion:       int32(plain.driver_version),
		CublasLtVersion:     int64(plain.cublaslt_version),
	}, nil
}

// Close unmakes the context once the calls on it are over; a second time does nothing. Its threads
// end when the last projection that was made from it is closed too.
func (context *Context) Close() error {
	return context.owner.close(func(handle *C.xqkv_context) error {
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_context_destroy(handle, report)
		})
	})
}
