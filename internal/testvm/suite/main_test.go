//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Twice in a row on busy processors is twice run: the second round is not go test's memory of the first.
func TestABusyRoundRunsWhatARoundBeforeHasRun(t *testing.T) {
	dir, runs := t.TempDir(), filepath.Join(t.TempDir(), "runs")
	for name, text := range map[string]string{
		"go.mod": "module counted\n\ngo 1.24\n",
		"counted_test.go": fmt.Sprintf(`package counted

import (
	"os"
	"testing"
)

func TestCounted(t *testing.T) {
	f, err := os.OpenFile(%q, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("run\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
`, runs),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "") // of the caller, whose own -count=1 would hide that ours is missing
	counted := tier{name: "counted", dir: dir, packages: []string{"./..."}, flags: []string{"-timeout", "10m"}}
	for round := 1; round <= 2; round++ {
		if r := counted.run(t.Context(), true, io.Discard); len(r.fails) > 0 || r.passed != 1 {
			t.Fatalf("round %d: %d passed, failed: %q", round, r.passed, r.fails)
		}
	}
	text, err := os.ReadFile(runs)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != "run\nrun\n" {
		t.Errorf("two rounds ran the test so: %q", text)
	}
}
