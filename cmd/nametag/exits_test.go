//go:build linux

package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var (
	// In a help there may be two a line.
	exitInHelp = regexp.MustCompile(`(?:^|  )([0-9])  (\S+(?: \S+)*)`)
	exitInPage = regexp.MustCompile(`(?m)^\| ([0-9]) \| (.*) \|$`)
)

// exitsOf reads the exit statuses that a help tells, with their meaning.
func exitsOf(t *testing.T, help string) map[int]string {
	t.Helper()
	_, rest, found := strings.Cut(help, "\nExit status:\n")
	if !found {
		t.Fatalf("a help tells no exit status:\n%s", help)
	}
	block, _, _ := strings.Cut(rest, "\n\n")
	all := map[int]string{}
	for line := range strings.Lines(block) {
		for _, m := range exitInHelp.FindAllStringSubmatch(strings.TrimRight(line, "\n"), -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil || all[n] != "" {
				t.Errorf("%d is told twice: %v", n, err)
			}
			all[n] = m[2]
		}
	}
	return all
}

// The exit statuses are told where a user looks, each with one meaning, and no other is told.
func TestTheExitStatusesAreThoseOfTheHelpsAndTheReadme(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var known []int
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "exit") && len(v.Values) == 1 {
			if l, ok := v.Values[0].(*ast.BasicLit); ok && l.Kind == token.INT {
				code, err := strconv.Atoi(l.Value)
				if err != nil {
					t.Fatal(err)
				}
				known = append(known, code)
			}
		}
		return true
	})
	if len(known) < 9 {
		t.Fatalf("the code has the exit statuses %v", known)
	}
	var told []int
	for name, help := range map[string]string{"resolve": resolveUsage, "apply": applyUsage, "status": statusUsage, "pin": pinUsage} {
		for code, meaning := range exitsOf(t, help) {
			if !slices.Contains(known, code) {
				t.Errorf("%s: %d (%s) is no exit status", name, code, meaning)
			}
			told = append(told, code)
		}
	}
	for _, code := range known {
		if !slices.Contains(told, code) {
			t.Errorf("no help tells of %d", code)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	resolve := exitsOf(t, resolveUsage)
	rows := exitInPage.FindAllStringSubmatch(string(readme), -1)
	for _, m := range rows {
		code, err := strconv.Atoi(m[1])
		if err != nil || resolve[code] == "" || !strings.HasPrefix(m[2], resolve[code]) {
			t.Errorf("the README has %d: %s, and the help of resolve %q", code, m[2], resolve[code])
		}
	}
	if len(rows) != len(resolve) {
		t.Errorf("the README has %d of them, the help of resolve %d", len(rows), len(resolve))
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// What could not be printed was not given, and what is not understood is said.
func TestVersionAndHelpTellTheirFailures(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}, {"help"}, {"--help"}} {
		var stderr bytes.Buffer
		if exit := run(t.Context(), args, fullDisk{}, &stderr); exit != exitFailed || !strings.Contains(stderr.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%q on a full disk: exit status %d, %s", args, exit, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), []string{"version", "x"}, &stdout, &stderr); exit != exitUsage || stdout.Len() > 0 {
		t.Errorf("version x: exit status %d, %q, %q", exit, &stdout, &stderr)
	}
}
