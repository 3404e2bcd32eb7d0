package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/constant"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var updateAPI = flag.Bool("update-api", false, "write down the API as it is now")

// public are the packages that others import.
var public = []string{"procfs", "earlynet", "identity", "identity/dmi", "identity/hetzner", "identity/identitytest", "identity/metadata"}

// What others build on is written down, a line for each thing that is exported. Whoever changes it sees here what that
// means for them, and decides.
func TestTheAPIIsAsItIsWrittenDown(t *testing.T) {
	exports := exportData(t)
	for _, path := range public {
		t.Run(path, func(t *testing.T) {
			load := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
			pkg, err := load.Import(module + path)
			if err != nil {
				t.Fatal(err)
			}
			is := exported(pkg)
			file := filepath.Join("testdata", "api", strings.ReplaceAll(path, "/", ".")+".txt")
			if *updateAPI {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(strings.Join(is, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			was := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			for _, line := range was {
				if !slices.Contains(is, line) {
					t.Errorf("breaks whoever uses it: there is no longer\n\t%s", line)
				}
			}
			for _, line := range is {
				if !slices.Contains(was, line) {
					t.Errorf("new:\n\t%s", line)
				}
			}
			if t.Failed() {
				t.Log("if this is decided, say it in CHANGELOG.md and write it down: go test ./internal -run TestTheAPI -update-api")
			}
		})
	}
}

// exportData is, for each package, the file in which the compiler wrote down what it exports.
func exportData(t *testing.T) map[string]string {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Export"}
	for _, path := range public {
		args = append(args, module+path)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	files := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return files
		case err != nil:
			t.Fatal(err)
		}
		files[p.ImportPath] = p.Export
	}
}

// exported is a line for each thing that a package exports: objects, and of its types the fields, with their tags, and
// the methods.
func exported(pkg *types.Package) (lines []string) {
	short := func(p *types.Package) string {
		if p == pkg {
			return ""
		}
		return p.Name()
	}
	for _, name := range pkg.Scope().Names() {
		obj := pkg.Scope().Lookup(name)
		if !obj.Exported() {
			continue
		}
		line := types.ObjectString(obj, short)
		switch obj := obj.(type) {
		case *types.Const:
			if obj.Val().Kind() == constant.String {
				line += " = " + obj.Val().ExactString()
			}
		case *types.TypeName:
			line, _, _ = strings.Cut(line, "{") // the parts follow
			lines = append(lines, parts(obj, short)...)
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return lines
}

// parts are the exported fields and methods of a type. With fields or methods that are not, nobody else can write it down
// whole, or has it.
func parts(obj *types.TypeName, short types.Qualifier) (lines []string) {
	add := func(format string, args ...any) {
		lines = append(lines, strings.TrimSpace(obj.Name()+"."+fmt.Sprintf(format, args...)))
	}
	switch u := obj.Type().Underlying().(type) {
	case *types.Struct:
		for i := range u.NumFields() {
			if f := u.Field(i); f.Exported() {
				add("%s field %s %s", f.Name(), types.TypeString(f.Type(), short), u.Tag(i))
			}
		}
	case *types.Interface:
		for m := range u.Methods() {
			if !m.Exported() {
				add("(a method that is not exported)")
				continue
			}
			add("%s in the interface, %s", m.Name(), types.TypeString(m.Type(), short))
		}
		return lines
	}
	methods := types.NewMethodSet(types.NewPointer(obj.Type()))
	for m := range methods.Methods() {
		if f, ok := m.Obj().(*types.Func); ok && f.Exported() {
			receiver := ""
			if r := f.Signature().Recv(); r != nil {
				if _, pointer := r.Type().(*types.Pointer); pointer {
					receiver = "*"
				}
			}
			add("%s method of %s%s, %s", f.Name(), receiver, obj.Name(), types.TypeString(f.Signature(), short))
		}
	}
	return lines
}
