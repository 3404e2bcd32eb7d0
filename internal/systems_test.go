package internal_test

import (
	"go/build"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// needLinux are the packages that are for Linux by what they are: what runs on a node, and the lab. Each file of theirs says
// so, that go build ./... and go vet ./... work on any system. What stands in for them elsewhere is named *_other.go.
var needLinux = []string{"cmd/nametag", "internal/node", "internal/testvm", "examples/init"}

// Of the lab, these are everybody's: what nametagctl imports, and what knows no system.
var anySystem = []string{"internal/testvm/cloud", "internal/testvm/demo", "internal/testvm/herd", "internal/testvm/lab", "internal/testvm/mutants", "internal/testvm/patience"}

func TestWhatNeedsLinuxSaysSoInEachFile(t *testing.T) {
	elsewhere := build.Default
	elsewhere.GOOS, elsewhere.CgoEnabled = "darwin", false
	seen := 0
	for _, top := range needLinux {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(filepath.ToSlash(path), "../")
			if d.IsDir() {
				for _, other := range append(anySystem, "internal/testvm/kube") { // a module of its own
					if name == other {
						return filepath.SkipDir
					}
				}
				return nil
			}
			if !strings.HasSuffix(name, ".go") {
				return nil
			}
			seen++
			builds, err := elsewhere.MatchFile(filepath.Dir(path), d.Name())
			if builds != strings.HasSuffix(name, "_other.go") {
				t.Errorf("%s: begin it with //go:build linux: its package needs Linux, and go build ./... is to work elsewhere too", name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 100 {
		t.Errorf("only %d files were looked at", seen)
	}
}
