package internal_test

import (
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// And so does each file of any other package that imports one of these, a test as a rule.
func TestWhatImportsWhatNeedsLinuxSaysSo(t *testing.T) {
	elsewhere := build.Default
	elsewhere.GOOS, elsewhere.CgoEnabled = "darwin", false
	linuxOnly := func(path string) bool {
		below := func(top string) bool { return path == top || strings.HasPrefix(path, top+"/") }
		return slices.ContainsFunc(needLinux, below) && !slices.ContainsFunc(anySystem, below)
	}
	seen := 0
	for _, top := range []string{"cmd", "earlynet", "examples", "identity", "internal", "procfs"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); d.IsDir() && err == nil {
				return filepath.SkipDir // a module of its own
			}
			name := strings.TrimPrefix(filepath.ToSlash(path), "../")
			if !strings.HasSuffix(name, ".go") || linuxOnly(filepath.ToSlash(filepath.Dir(name))) {
				return nil
			}
			if builds, err := elsewhere.MatchFile(filepath.Dir(path), d.Name()); err != nil || !builds {
				return err
			}
			seen++
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, i := range file.Imports {
				if of, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); ours && linuxOnly(of) {
					t.Errorf("%s: begin it with //go:build linux, or do without %s, which needs Linux", name, of)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 100 {
		t.Errorf("only %d files were looked at", seen)
	}
}
