package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module with one function and one test of it.
func checkout(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"go.mod":    "module example.org/m\n\ngo 1.26\n",
		"a.go":      "package m\n\n// One is 1.\nfunc One() int { return 1 }\n\n// Two is 2.\nfunc Two() int { return 2 }\n",
		"a_test.go": "package m\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {\n\tif One() != 1 {\n\t\tt.Error(One())\n\t}\n}\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMutantsAreCaughtOrNot(t *testing.T) {
	checkout(t)
	before, err := os.ReadFile("a.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		about, old, new, says string
		status                int
	}{
		{"a test fails", "return 1", "return 3", "caught", 0},
		{"no test looks there", "return 2", "return 3", errSurvived.Error(), 1},
		{"what it changes is not there", "return 4", "return 3", "does not fit", 1},
		{"what it changes is there twice", "return", "return 0 +", "does not fit", 1},
		{"what it makes does not build", "return 1", "return", "does not build", 1},
	} {
		t.Run(c.about, func(t *testing.T) {
			var out bytes.Buffer
			status := run(t.Context(), []mutant{{name: "it", file: "a.go", old: c.old, new: c.new, test: []string{"."}}}, nil, &out)
			if status != c.status || !strings.Contains(out.String(), c.says) {
				t.Errorf("status %d: %s", status, &out)
			}
		})
	}
	after, err := os.ReadFile(filepath.Join(".", "a.go"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the checkout was changed: %v\n%s", err, after)
	}
}

func TestTheListFitsTheCode(t *testing.T) {
	t.Chdir("../../..")
	names := map[string]bool{}
	for _, m := range mutants {
		code, err := os.ReadFile(m.file)
		if err != nil {
			t.Error(err)
			continue
		}
		if n := bytes.Count(code, []byte(m.old)); n != 1 || m.old == m.new || len(m.test) == 0 || names[m.name] {
			t.Errorf("%s: what it changes stands %d times in %s", m.name, n, m.file)
		}
		names[m.name] = true
	}
}
