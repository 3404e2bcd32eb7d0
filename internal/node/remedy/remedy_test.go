//go:build linux

package remedy_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/kmod"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/remedy"
	"github.com/nametag-boot/nametag/procfs"
)

// rows are the constants of the package, by their source: none can be forgotten.
func rows(t *testing.T) (all []remedy.Row) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "remedy.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Row" {
			for _, v := range spec.Values {
				text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, remedy.Row(text))
			}
		}
		return true
	})
	return all
}

func TestEveryRowThatALineLeadsToIsInTheTable(t *testing.T) {
	page, err := os.ReadFile("../../../docs/boot.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Troubleshooting")
	table, _, _ = strings.Cut(table, "\n## ")
	there := map[string]int{}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| the console says") || strings.HasPrefix(line, "| ---") {
			continue
		}
		m := regexp.MustCompile(`^\| <a id="([a-z-]+)"></a>`).FindStringSubmatch(line)
		if m == nil {
			t.Errorf("a row without an address: %.60s", line)
			continue
		}
		there[m[1]]++
	}
	for id, times := range there {
		if times != 1 {
			t.Errorf("#%s is there %d times", id, times)
		}
	}
	all := rows(t)
	for _, row := range all {
		see := row.See()
		if there[string(row)] != 1 || see != " (see boot.md#"+string(row)+")" || len(see) > 40 {
			t.Errorf("%q leads to no row of the table, or is no short address", see)
		}
	}
	if len(all) < 15 || len(there) < 30 {
		t.Errorf("there are %d rows in the code, %d in the table", len(all), len(there))
	}
}

func TestAnErrorLeadsToTheRowThatHelps(t *testing.T) {
	_, mistake := procfs.ParsePolicy("90")
	nic := &earlynet.Error{Op: "find a NIC", Err: earlynet.ErrNoNIC}
	timeout := func(err error) error {
		return &identity.TimeoutError{Source: "hetzner", Ended: context.DeadlineExceeded, Paths: []identity.PathError{{Err: err}}}
	}
	named := map[remedy.Row]bool{}
	for _, c := range []struct {
		about string
		err   error
		want  remedy.Row
	}{
		{"no error", nil, ""},
		{"something else", errors.New("it broke"), ""},
		{"a mistake in the argument", mistake, remedy.Argument},
		{"a wait without an answer", timeout(unix.ECONNREFUSED), remedy.NoAnswer},
		{"a wait without a NIC", timeout(nic), remedy.NoNIC},
		{"a wait in which only another server's answer came", timeout(&identity.MismatchError{InstanceID: "1", Serial: "2"}), remedy.AnotherServer},
		{"a wait in which the name was none", timeout(&identity.NameError{Name: "a b", Rule: "a blank"}), remedy.NoHostName},
		{"nothing proves it", fmt.Errorf("identity: %w", &identity.UnprovenError{Source: "hetzner"}), remedy.Unproven},
		{"renamed, which is not wanted", &memory.RenamedError{Known: "a", Answer: "b", Err: timeout(nic)}, remedy.RenameStop},
		{"no driver", &kmod.Error{Op: "find a driver", Err: &kmod.NoDriverError{Modalias: "pci:x"}}, remedy.NoDriver},
		{"a module that the kernel refuses", &kmod.Error{Op: "finit_module", Err: unix.EKEYREJECTED}, remedy.ModuleRefused},
		{"a permission that is no module's", unix.EPERM, ""},
	} {
		if got := remedy.Of(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", c.about, got, c.want)
		}
		named[c.want] = true
	}
	for v := memory.KeepAsking; v <= memory.GiveUp; v++ {
		named[remedy.After(v)] = true
	}
	for _, row := range []remedy.Row{remedy.Known, remedy.Renamed, remedy.Sealed} {
		if !named[row] {
			t.Errorf("no outcome leads to %q", row)
		}
	}
	if remedy.Row("").See() != "" {
		t.Error("what leads nowhere says so")
	}
}
