package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// On a node a panic in any goroutine ends the process, and with the first process the machine. So whatever runs beside
// the main goroutine there is started by package safely: neither by a go statement nor by a sync.WaitGroup, whose Go has
// one argument where that of a safely.Group has three.
func TestGoroutinesAreStartedSafely(t *testing.T) {
	eachNode(t, func(at string, n ast.Node) {
		if startsBare(n) {
			t.Errorf("%s: a goroutine that nobody catches: use internal/safely", at)
		}
	})
}

// What a node says is a line: on its console, in its log and in an event's JSON.
func TestErrorsAreJoinedOnOneLine(t *testing.T) {
	eachNode(t, func(at string, n ast.Node) {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Join" {
			if p, ok := s.X.(*ast.Ident); ok && p.Name == "errors" {
				t.Errorf("%s: errors.Join makes several lines: use internal/joined", at)
			}
		}
	})
}

// eachNode looks at all code that runs on a node, but for the commands.
func eachNode(t *testing.T, look func(at string, n ast.Node)) {
	t.Helper()
	for _, dir := range []string{"../earlynet", "../identity", "node"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if n != nil {
					look(files.Position(n.Pos()).String(), n)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// startsBare reports whether a node of the syntax starts a goroutine by itself.
func startsBare(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		s, ok := n.Fun.(*ast.SelectorExpr)
		return ok && s.Sel.Name == "Go" && len(n.Args) == 1
	}
	return false
}
