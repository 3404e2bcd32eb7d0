package overlay

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheGoCommandSeesTheChangeAndTheCheckoutStays(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	const text = "package main\n\nfunc main() { println(\"right\") }\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Change(t.TempDir(), file, "right", "wrong")
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), "go", "run", "-overlay", list, file).CombinedOutput()
	if err != nil || strings.TrimSpace(string(said)) != "wrong" {
		t.Errorf("%q, %v", said, err)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != text {
		t.Errorf("the file is %q, %v", after, err)
	}
}

func TestATextThatDoesNotStandThereOnceIsNotChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.go")
	if err := os.WriteFile(file, []byte("package a // a"), 0o600); err != nil {
		t.Fatal(err)
	}
	for before, says := range map[string]string{"b": "stands 0 times", "a": "times in"} {
		if _, err := Change(t.TempDir(), file, before, "c"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", before, err)
		}
	}
	if _, err := Change(t.TempDir(), file+"x", "a", "c"); err == nil {
		t.Error("there is no such file, and no error")
	}
}
