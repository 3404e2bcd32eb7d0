package internal_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// facts are sentences of the documentation with numbers that the code has. In place of a number stands {FILE NAME} or
// {FILE NAME|FORM}: NAME is a constant of the file, a variable, or FUNCTION.FIELD for a field of what a function returns, and
// FORM one of forms. So neither the page nor the code changes without the other.
var facts = []struct{ page, says string }{
	{"docs/retry.md", "The bound is {identity/backoff.go firstBound} and doubles up to **{identity/backoff.go lastBound}**"},
	{"docs/retry.md", "joined by another after {identity/runner.go firstHedge}, then 400 ms, … up to {identity/runner.go lastHedge}, a quarter more or less; " +
		"at most {identity/runner.go maxInFlight|word} are in flight, and each ends after {identity/runner.go attemptTime}."},
	{"docs/retry.md", "joined by a second one after {identity/metadata/dial.go hedgeDial}"},
	{"docs/retry.md", "**Retry-After** is honoured up to {identity/runner.go maxHold},"},
	{"docs/retry.md", "one such restart in {identity/history.go quotaEvery|word}, after {identity/history.go quotaBurst|word} at once,"},
	{"docs/retry.md", "given up after {identity/resolve.go moreTime}."},
	{"docs/network.md", "after {earlynet/neigh.go arpRetrans|milliseconds} instead of a second."},
	{"docs/network.md", "`IFA_PROTO` {earlynet/address.go rtprotNametag}, a lifetime of {earlynet/address.go addressLife|a}"},
	{"docs/network.md", "protocol {earlynet/address.go rtprotNametag}, metrics of their own"},
	{"docs/network.md", "is set up again** after {earlynet/nic.go firstRest|a}, then after two, four, up to {earlynet/nic.go lastRest|a}, and each is said."},
	{"docs/boot.md", "are waited for no longer ({internal/node/boot/worker.go driverPatience})"},
	{"docs/boot.md", "saying why once {internal/node/boot/ending.go sayAgain|a}"},
	{"docs/boot.md", "Asking waits {internal/node/memory/look.go headStart} for a disk"},
	{"docs/boot.md", "At most {internal/node/memory/name.go largest|binary} of a file is read"},
	{"docs/boot.md", "or {internal/node/handover/keeper.go manyStops|thousands} stops"},
	{"docs/initramfs.md", "it unpacks to {internal/image/limit/limit.go Default.Unpacked|binary} at most, has {internal/image/limit/limit.go Default.Entries} " +
		"entries, its paths and links lead by {internal/image/limit/limit.go Default.Steps} names, and it is read within {internal/image/limit/limit.go Default.Time|word}."},
	{"README.md", "The default policy: {procfs/policy.go DefaultWait|minutes}, then reboot"},
	{"README.md", "where the service gives none for {procfs/policy.go DefaultPatience|a}, it goes on under that."},
}

// forms are how a number is written.
var forms = map[string]func(int64) string{
	"": func(n int64) string { return fmt.Sprint(n) },
	"word": func(n int64) string {
		return [...]string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}[n]
	},
	"milliseconds": func(n int64) string { return fmt.Sprint(n, " ms") },
	"binary": func(n int64) string {
		units := []string{"B", "KiB", "MiB", "GiB"}
		for len(units) > 1 && n%1024 == 0 {
			n, units = n/1024, units[1:]
		}
		return fmt.Sprint(n, " ", units[0])
	},
	"thousands": func(n int64) string {
		s := fmt.Sprint(n)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	},
}

// durationForms are how a time is written.
var durationForms = map[string]func(n int64, short, long string) string{
	"":     func(n int64, short, _ string) string { return fmt.Sprint(n, " ", short) },
	"word": func(n int64, _, long string) string { return forms["word"](n) + " " + long + "s" },
	"a": func(n int64, _, long string) string {
		if n == 1 {
			return "a " + long
		}
		return fmt.Sprint(n, " ", long, "s")
	},
	"minutes": func(n int64, _, long string) string { return fmt.Sprint(n, " ", long, "s") },
}

// written is a time in that form.
func written(d time.Duration, form string) string {
	how := durationForms[form]
	if how == nil {
		return "(no form " + form + " of a time)"
	}
	for _, unit := range []struct {
		of          time.Duration
		short, long string
	}{{time.Minute, "min", "minute"}, {time.Second, "s", "second"}, {time.Millisecond, "ms", "millisecond"}} {
		if d >= unit.of && d%unit.of == 0 {
			return how(int64(d/unit.of), unit.short, unit.long)
		}
	}
	return d.String()
}

// A fact stands on one page, and others link to it.
func TestAFactOfTheDocumentationStandsOnOnePage(t *testing.T) {
	page := map[string]string{}
	for _, f := range facts {
		for _, m := range fact.FindAllStringSubmatch(f.says, -1) {
			name := m[1] + " " + m[2]
			if page[name] != "" && page[name] != f.page {
				t.Errorf("%s stands on %s and on %s", name, page[name], f.page)
			}
			page[name] = f.page
		}
	}
}

// What the pages say that it takes, and what it was tried with, is what is built with.
func TestTheVersionsOfTheDocumentationAreThoseThatAreBuilt(t *testing.T) {
	version := func(file, pattern string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s has no %s", file, pattern)
		}
		return string(m[1])
	}
	const kube = "testvm/kube/go.mod"
	want := map[string]string{
		`\bGo (\d+\.\d+(?:\.\d+)?) or later`: version("../go.mod", `(?m)^go (\S+)$`),
		`\breal etcd (\d+\.\d+)`:             version(kube, `go\.etcd\.io/etcd/server/v3 v(\d+\.\d+)`),
		`\bkubelet (\d+\.\d+)`:               version(kube, `k8s\.io/kubernetes v(\d+\.\d+)`),
	}
	for pattern, is := range want {
		seen := 0
		for _, p := range readPages(t) {
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(p.prose, -1) {
				if seen++; m[1] != is {
					t.Errorf("%s says %s, and it is %s", p.path, m[0], is)
				}
			}
		}
		if seen == 0 {
			t.Errorf("no page says %s", pattern)
		}
	}
}

var fact = regexp.MustCompile(`\{(\S+) ([\w.]+)(?:\|(\w+))?\}`)

func TestTheNumbersOfTheDocumentationAreThoseOfTheCode(t *testing.T) {
	words := regexp.MustCompile(`\s+`)
	for _, f := range facts {
		want := fact.ReplaceAllStringFunc(f.says, func(place string) string {
			m := fact.FindStringSubmatch(place)
			value, isTime, err := valueOf(filepath.Join("..", m[1]), m[2])
			if err != nil {
				t.Errorf("%s: %v", f.page, err)
				return place
			}
			if isTime {
				return written(time.Duration(value), m[3])
			}
			return forms[m[3]](value)
		})
		text, err := os.ReadFile(filepath.Join("..", f.page))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.ToLower(words.ReplaceAllString(string(text), " ")), strings.ToLower(want)) {
			t.Errorf("by the code %s would say\n%s", f.page, want)
		}
	}
}

// valueOf finds a number in a file, and reports whether it is a time.
func valueOf(path, name string) (value int64, isTime bool, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return 0, false, err
	}
	function, field, inFunction := strings.Cut(name, ".")
	var found ast.Expr
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && (!inFunction || f.Name.Name != function) {
			continue
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, id := range n.Names {
					if !inFunction && id.Name == name && i < len(n.Values) {
						found = n.Values[i]
					}
				}
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok && inFunction && id.Name == field {
					found = n.Value
				}
			}
			return true
		})
	}
	if found == nil {
		return 0, false, fmt.Errorf("%s has no %s", path, name)
	}
	v, isTime, err := evaluate(found)
	if err != nil {
		return 0, false, fmt.Errorf("%s: %s: %w", path, name, err)
	}
	n, exact := constant.Int64Val(constant.ToInt(v))
	if !exact {
		return 0, false, fmt.Errorf("%s: %s is no number", path, name)
	}
	return n, isTime, nil
}

// evaluate is the value of an expression of numbers and the units of package time.
func evaluate(e ast.Expr) (v constant.Value, isTime bool, err error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0), false, nil
	case *ast.ParenExpr:
		return evaluate(e.X)
	case *ast.SelectorExpr:
		units := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}
		if unit, ok := units[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(unit)), true, nil
		}
	case *ast.BinaryExpr:
		x, timeX, errX := evaluate(e.X)
		y, timeY, errY := evaluate(e.Y)
		switch {
		case errX != nil || errY != nil:
			return nil, false, errors.Join(errX, errY)
		case e.Op == token.SHL:
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n)), timeX, nil
		}
		return constant.BinaryOp(x, e.Op, y), timeX || timeY, nil
	}
	return nil, false, fmt.Errorf("%T is more than this test can evaluate", e)
}
