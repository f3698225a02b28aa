package xqkv_test

import (
	"os"
	"strings"
	"testing"
)

func TestTheReadmeShowsCodeThatRuns(t *testing.T) {
	readme := string(must(os.ReadFile("README.md")))
	example := string(must(os.ReadFile("example_test.go")))
	blocks := strings.Split(readme, "```go\n")[1:]
	for number, block := range blocks {
		code, _, found := strings.Cut(block, "```")
		if !found || !strings.Contains(example, code) {
			t.Errorf("block %d of README.md: copy `project` or `fillPages` of example_test.go", number)
		}
	}
	if len(blocks) != 2 {
		t.Errorf("README.md has %d blocks of Go, not 2", len(blocks))
	}
}
