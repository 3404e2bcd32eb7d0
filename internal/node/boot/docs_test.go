//go:build linux

package boot

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const top = "../../.."

// spoken are all strings of what runs on a node, and what the kernel says, by us and by itself.
func spoken(t *testing.T) (all []saying) {
	t.Helper()
	kernel := []string{unix.ECONNREFUSED.Error(), unix.EPERM.Error(), unix.EKEYREJECTED.Error(), "Mounting V%d filesystem in no-recovery mode"}
	for _, literal := range append(literals(t, top), kernel...) {
		all = append(all, sayingOf(literal))
	}
	return all
}

// section is what stands in a page between two texts.
func section(t *testing.T, page, from, to string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, page))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), from)
	part, _, ended := strings.Cut(rest, to)
	if !found || !ended {
		t.Fatalf("%s has nothing from %q to %q", page, from, to)
	}
	return part
}

// The lines that the pages explain are lines that nametag says.
func TestTheConsolesLinesAreThoseOfTheDocumentation(t *testing.T) {
	code := spoken(t)
	quoted, split := regexp.MustCompile("`([^`]+)`"), regexp.MustCompile(`…|"|[0-9]+[a-z]*|\bN\b|: | \(| names |\b(reboot|after|says|platform) |=\w+|, on lo|MAC\)`)
	for page, where := range map[string]struct {
		from, to string
		least    int
	}{
		"docs/boot.md":    {"## Troubleshooting", "\n## ", 20},
		"docs/network.md": {"## When nobody answers", "\n| `wait for the link", 6},
	} {
		found := 0
		for line := range strings.Lines(section(t, page, where.from, where.to)) {
			cells := strings.Split(line, "|")
			if len(cells) < 4 {
				continue
			}
			for _, q := range quoted.FindAllStringSubmatch(cells[1], -1) {
				found++
				for _, part := range split.Split(q[1], -1) {
					if part = strings.Trim(part, " ():,;?="); len(part) > 3 && !said(code, part) {
						t.Errorf("%s: %q: nothing says %q", page, q[1], part)
					}
				}
			}
		}
		if found < where.least {
			t.Errorf("%s has %d lines", page, found)
		}
	}
}

// A boot that goes well says what the page shows, in the page's order: each line is of the code's words, between what
// differs from boot to boot.
func TestTheLinesOfABootThatGoesWellAreThoseOfTheCode(t *testing.T) {
	code := spoken(t)
	differs := regexp.MustCompile(`[0-9.]+ ?m?s\b|[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|example-\S*[a-z0-9]|\b[0-9]+\b|\beth0\S*|virtio\S*|\w*failover,?|: | \(|\)|, |\bgoes |talos\.hostname\.wait=\S+`)
	found := 0
	for line := range strings.Lines(section(t, "docs/boot.md", "## A boot that goes well\n\n```\n", "```")) {
		line, ours := strings.CutPrefix(strings.TrimSpace(line), "nametag: ")
		if !ours {
			continue // the kernel's
		}
		found++
		for _, part := range differs.Split(line, -1) {
			if part = strings.Trim(part, " :,;"); len(part) > 3 && !said(code, part) {
				t.Errorf("%q: nothing says %q", line, part)
			}
		}
	}
	if found < 7 {
		t.Errorf("the page has %d lines", found)
	}
}

// A saying is a string of the code: what it leaves to its arguments may be anything.
type saying struct {
	text  string
	whole *regexp.Regexp // nil: it leaves nothing, or everything
}

// said reports whether a saying contains the text.
func said(code []saying, text string) bool {
	return slices.ContainsFunc(code, func(s saying) bool {
		return strings.Contains(s.text, text) || s.whole != nil && s.whole.MatchString(text)
	})
}

var verb = regexp.MustCompile(`%[-+#0-9.]*[a-zA-Z]`)

func sayingOf(literal string) saying {
	parts := verb.Split(literal, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	whole := strings.Join(parts, `.+`)
	if len(parts) < 2 || len(strings.Trim(whole, ".+ :;,()\\")) <= 3 {
		return saying{text: literal}
	}
	re, _ := regexp.Compile("^" + whole + "$") //nolint:errcheck // of what is quoted
	return saying{literal, re}
}

// literals are the strings of all that runs on a node, tests left out.
func literals(t *testing.T, top string) (all []string) {
	t.Helper()
	for _, dir := range []string{"internal/node", "identity", "earlynet", "procfs", "internal/safely"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if s, err := strconv.Unquote(l.Value); err == nil {
						all = append(all, s)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}
