package internal_test

import (
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// needLinux are the packages that are for Linux by what they are: what runs on a node, and the lab. Each file of theirs says
// so, that go build ./... and go vet ./... work on any system. What stands in for them elsewhere is named *_other.go.
var needLinux = []string{"cmd/nametag", "internal/node", "internal/testvm", "examples/init"}

// Of the lab, these are everybody's: what nametagctl imports, and what knows no system.
var anySystem = []string{"internal/testvm/cloud", "internal/testvm/demo", "internal/testvm/herd", "internal/testvm/lab", "internal/testvm/mutants", "internal/testvm/overlay", "internal/testvm/patience"}

// onlyLinux reports whether a package is one of the first kind.
func onlyLinux(path string) bool {
	below := func(top string) bool { return path == top || strings.HasPrefix(path, top+"/") }
	return slices.ContainsFunc(needLinux, below) && !slices.ContainsFunc(anySystem, below)
}

// eachFile calls look with every Go file of the house: its name, the package that it is in, and whether a system other than
// Linux builds it.
func eachFile(t *testing.T, look func(name, in string, elsewhere bool)) {
	t.Helper()
	other := build.Default
	other.GOOS, other.CgoEnabled = "darwin", false
	for _, top := range []string{"cmd", "earlynet", "examples", "identity", "internal", "procfs"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			name := strings.TrimPrefix(filepath.ToSlash(path), "../")
			switch {
			case err != nil:
				return err
			case name == "internal/testvm/kube": // other people's sources
				return filepath.SkipDir
			case d.IsDir() || !strings.HasSuffix(name, ".go"):
				return nil
			}
			elsewhere, err := other.MatchFile(filepath.Dir(path), d.Name())
			if err == nil {
				look(name, filepath.ToSlash(filepath.Dir(name)), elsewhere)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatNeedsLinuxSaysSoInEachFile(t *testing.T) {
	seen := 0
	eachFile(t, func(name, in string, elsewhere bool) {
		if !onlyLinux(in) {
			return
		}
		seen++
		if elsewhere != strings.HasSuffix(name, "_other.go") {
			t.Errorf("%s: begin it with //go:build linux: its package needs Linux, and go build ./... is to work elsewhere too", name)
		}
	})
	if seen < 100 {
		t.Errorf("only %d files were looked at", seen)
	}
}

// And so does each file of any other package that imports one of these, a test as a rule.
func TestWhatImportsWhatNeedsLinuxSaysSo(t *testing.T) {
	seen := 0
	eachFile(t, func(name, in string, elsewhere bool) {
		if onlyLinux(in) || !elsewhere {
			return
		}
		seen++
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", name), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if of, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); ours && onlyLinux(of) {
				t.Errorf("%s: begin it with //go:build linux, or do without %s, which needs Linux", name, of)
			}
		}
	})
	if seen < 100 {
		t.Errorf("only %d files were looked at", seen)
	}
}
