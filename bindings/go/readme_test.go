package xqkv_test

import (
	"os"
	"strings"
	"testing"
)

func TestTheReadmeShowsCodeThatRuns(t *testing.T) {
	readme := string(must(os.ReadFile("README.md")))
	_, after, _ := strings.Cut(readme, "```go\n")
	code, _, found := strings.Cut(after, "```")
	example := string(must(os.ReadFile("example_test.go")))
	if !found || !strings.Contains(example, code) {
		t.Error("copy `project` of example_test.go to README.md, between ```go and ```")
	}
}
