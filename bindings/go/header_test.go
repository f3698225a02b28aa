package xqkv_test

import (
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

// unbound is what of the header the package leaves alone, and why.
var unbound = map[string]string{
	"XQKV_MEMORY_HOST":      "a slice is in the host's memory, which is 0",
	"XQKV_MEMORY_DEVICE":    "as above",
	"XQKV_OWNERSHIP_COPY":   "tensors are copied, which is 0",
	"XQKV_OWNERSHIP_BORROW": "C may not keep Go's memory after a call",
	"XQKV_VERSION_MAJOR":    "in XQKV_VERSION_NUMBER",
	"XQKV_VERSION_MINOR":    "as above",
	"XQKV_VERSION_PATCH":    "as above",

	"xqkv_context_options.allocate":          "CUDA's",
	"xqkv_context_options.free":              "CUDA's",
	"xqkv_context_options.allocator_user":    "CUDA's",
	"xqkv_context_options.cuda_context":      "CUDA's",
	"xqkv_context_options.cublaslt_handle":   "CUDA's",
	"xqkv_context_options.parallel_for":      "goroutines are no pool of threads to lend",
	"xqkv_context_options.parallel_for_user": "as above",
	"xqkv_view.quantization_scale":           "not in this version",
	"xqkv_forward.stream":                    "CUDA's",
	"xqkv_forward.plan":                      "a plan only tells the host's workspace",
	"xqkv_forward.wait_event":                "CUDA's",
	"xqkv_forward.signal_event":              "CUDA's",
	"XQKV_COMM_KIND_ALONE":                   "ranks' calls with transfers are C's",
	"XQKV_COMM_KIND_THREADS":                 "ranks' calls with transfers are C's",
	"XQKV_COMM_KIND_NCCL":                    "ranks' calls with transfers are C's",
	"XQKV_COMM_KIND_COLLECTIVES":             "ranks' calls with transfers are C's",
	"XQKV_COMM_FLAG_CHECK_CALLS":             "ranks' calls with transfers are C's",
	"XQKV_COMM_FLAG_WATCHDOG":                "ranks' calls with transfers are C's",
	"xqkv_collectives_init":                  "as above",
	"xqkv_comm_abort":                        "as above",
	"xqkv_comm_create_alone":                 "as above",
	"xqkv_comm_create_collectives":           "as above",
	"xqkv_comm_create_threads":               "as above",
	"xqkv_comm_create_nccl":                  "as above",
	"xqkv_comm_adopt_nccl":                   "as above",
	"xqkv_unique_id_create":                  "as above",
	"xqkv_unique_id.bytes":                   "as above",
	"xqkv_comm_destroy":                      "as above",
	"xqkv_comm_get_info":                     "as above",
	"xqkv_comm_info_init":                    "as above",
	"xqkv_comm_options_init":                 "as above",
	"xqkv_comm_poll":                         "as above",
	"xqkv_projection_set_comm":               "as above",
	"xqkv_message.data":                      "as above",
	"xqkv_message.bytes":                     "as above",
	"xqkv_message.peer":                      "as above",
	"xqkv_message.is_sent":                   "as above",
	"xqkv_collectives.all_gather":            "as above",
	"xqkv_collectives.broadcast":             "as above",
	"xqkv_collectives.exchange":              "as above",
	"xqkv_collectives.poll":                  "as above",
	"xqkv_collectives.abort":                 "as above",
	"xqkv_collectives.user":                  "as above",
	"xqkv_comm_options.deadline_ms":          "as above",
	"xqkv_comm_info.kind":                    "as above",
	"xqkv_comm_info.rank":                    "as above",
	"xqkv_comm_info.rank_count":              "as above",
	"xqkv_comm_info.transfers":               "as above",
	"xqkv_comm_info.is_poisoned":             "as above",
	"xqkv_comm_info.nccl_version":            "as above",
	"xqkv_projection_options.comm":           "as above",
	"xqkv_forward.encoder_rank_rows":         "needs a communicator",
	"xqkv_forward.chunk_rows":                "needs a communicator",
	"xqkv_tensor.memory":                     "a slice is in the host's memory, which is 0",
	"xqkv_tensor.ownership":                  "tensors are copied, which is 0",
	"xqkv_plan_options.alignment_bytes":      "a plan only tells the host's workspace",
	"xqkv_plan_options.workspace_limit":      "a plan only tells the host's workspace",
	"xqkv_workspace.recommended_bytes":       "a plan only tells the host's workspace",
	"xqkv_context_reclaim":                   "CUDA's: a slice is in the host's memory",
	"xqkv_update_get_commit_bytes":           "CUDA's: for engines that lend device memory",
	"XQKV_PROJECTION_FLAG_SHARE_REPLICAS":    "needs a communicator",
	"XQKV_FORWARD_FLAG_GATHER_QUERY":         "needs a communicator",
	"XQKV_FORWARD_FLAG_GATHER_KEY_VALUE":     "needs a communicator",
	"XQKV_FORWARD_FLAG_START":                "needs a communicator",
	"XQKV_FORWARD_FLAG_FINISH":               "needs a communicator",
	"XQKV_PROJECTION_FLAG_TENSOR_FLOAT":      "CUDA's",
	"XQKV_PROJECTION_FLAG_BATCH_INVARIANT":   "CUDA's",
	"XQKV_PLAN_FLAG_TIMED":                   "CUDA's",
	"xqkv_error.status":                      "the call returned it",
}

var (
	comments  = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)
	constants = regexp.MustCompile(`(?m)^(?:  |#define )(XQKV_[A-Z0-9_]+)(?: =|\s+[-0-9(])`)
	functions = regexp.MustCompile(`\b(xqkv_[a-z_]+)\([a-z]`)
	structs   = regexp.MustCompile(`(?s)typedef struct (xqkv_\w+) \{(.*?)\}`)
	fields    = regexp.MustCompile(`(\w+)(?:\[\d+\])?;`)
)

func header() string {
	return comments.ReplaceAllString(string(must(os.ReadFile("../../include/xqkv.h"))), "")
}

// source is the package's, without its tests.
func source() string {
	var all strings.Builder
	for _, path := range must(filepath.Glob("*.go")) {
		if !strings.HasSuffix(path, "_test.go") {
			all.Write(must(os.ReadFile(path)))
		}
	}
	return all.String()
}

// sourceOf is the file of a struct's noun.
func sourceOf(name string) string {
	noun := strings.TrimPrefix(name, "xqkv_")
	noun = strings.TrimSuffix(strings.TrimSuffix(noun, "_options"), "_info")
	code, err := os.ReadFile(noun + ".go")
	if os.IsNotExist(err) {
		return "" // a noun that the package leaves alone has no file
	}
	return string(must(code, err))
}

func TestEveryConstantAndFunctionOfTheHeaderIsBound(t *testing.T) {
	code := source()
	names := matches(constants, header())
	if len(names) < 75 {
		t.Errorf("only %d constants were found", len(names))
	}
	calls := matches(functions, header())
	if len(calls) < 35 {
		t.Errorf("only %d functions were found", len(calls))
	}
	for _, name := range append(names, calls...) {
		used := regexp.MustCompile(`\b(C\.)?` + name + `\b`).MatchString(code)
		holdBound(t, name, used)
	}
}

func TestEveryFieldOfTheHeadersStructsIsBound(t *testing.T) {
	found := 0
	for _, match := range structs.FindAllStringSubmatch(header(), -1) {
		code := sourceOf(match[1])
		for _, field := range fields.FindAllStringSubmatch(match[2], -1) {
			if field[1] == "struct_size" || field[1] == "reserved" || field[1] == "flags" {
				continue
			}
			found++
			use := regexp.MustCompile(`\b(plain|to|report|copy)\.` + field[1] + `\b`)
			holdBound(t, match[1]+"."+field[1], use.MatchString(code))
		}
	}
	if found < 90 {
		t.Errorf("only %d fields were found", found)
	}
}

// holdBound holds that a name is used exactly if it is not left alone.
func holdBound(t *testing.T, name string, used bool) {
	t.Helper()
	if why, left := unbound[name]; left == used {
		t.Errorf("%s: used is %v, left alone is %v (%s)", name, used, left, why)
	}
}

func matches(pattern *regexp.Regexp, text string) (names []string) {
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	sort.Strings(names)
	return names
}

func TestNothingIsLeftAloneThatTheHeaderDoesNotHave(t *testing.T) {
	text := header()
	for name := range unbound {
		parts := strings.Split(name, ".")
		if !strings.Contains(text, parts[len(parts)-1]) {
			t.Errorf("the header has no %s", name)
		}
	}
}
