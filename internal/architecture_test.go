package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ARCHITECTURE.md names a function at each arrow of the way of a name: they are all there.
func TestTheWayOfANameIsThatOfTheCode(t *testing.T) {
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	arrow := regexp.MustCompile(`(?m)│ ([a-z/]+): (?:\((\*?)(\w+)\)\.)?(\w+)`)
	arrows := arrow.FindAllStringSubmatch(string(text), -1)
	if len(arrows) < 15 {
		t.Fatalf("%d arrows were found", len(arrows))
	}
	for _, a := range arrows {
		receiver := ""
		if a[3] != "" {
			receiver = `\(\w+ ` + regexp.QuoteMeta(a[2]+a[3]) + `\) `
		}
		function := regexp.MustCompile(`(?m)^func ` + receiver + a[4] + `\(`)
		files, err := filepath.Glob(filepath.Join("..", a[1], "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || !strings.HasSuffix(file, "_test.go") && function.Match(code)
		}
		if !found {
			t.Errorf("%s: there is no such function", strings.TrimPrefix(a[0], "│ "))
		}
	}
}
