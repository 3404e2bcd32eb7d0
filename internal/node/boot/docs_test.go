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
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The lines that docs/boot.md explains are lines that nametag says.
func TestTheConsolesLinesAreThoseOfTheDocumentation(t *testing.T) {
	const top = "../../.."
	page, err := os.ReadFile(filepath.Join(top, "docs/boot.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## Troubleshooting")
	table, _, _ = strings.Cut(table, "\n## ")
	code := literals(t, top)
	// And what the kernel says, by us and by itself.
	code = append(code, unix.ECONNREFUSED.Error(), unix.EPERM.Error(), unix.EKEYREJECTED.Error(), "Mounting V%d filesystem in no-recovery mode")
	quoted, split := regexp.MustCompile("`([^`]+)`"), regexp.MustCompile(`…|"|[0-9]+[a-z]*|\bN\b|: | \(| names |\b(reboot|after|says|platform) |=\w+`)
	found := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, q := range quoted.FindAllStringSubmatch(cells[1], -1) {
			found++
			for _, part := range split.Split(q[1], -1) {
				if part = strings.Trim(part, " ():,;?="); len(part) > 3 && !said(code, part) {
					t.Errorf("%q: nothing says %q", q[1], part)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("the page has %d lines", found)
	}
}

// said reports whether a literal contains the text; what a literal leaves to its arguments may be anything.
func said(code []string, text string) bool {
	verb := regexp.MustCompile(`%[-+#0-9.]*[a-zA-Z]`)
	for _, literal := range code {
		if strings.Contains(literal, text) {
			return true
		}
		parts := verb.Split(literal, -1)
		if len(parts) < 2 {
			continue
		}
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		whole := strings.Join(parts, `.+`)
		if re, err := regexp.Compile("^" + whole + "$"); err == nil && len(strings.Trim(whole, ".+ :;,()\\")) > 3 && re.MatchString(text) {
			return true
		}
	}
	return false
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
