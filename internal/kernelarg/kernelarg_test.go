package kernelarg_test

import (
	"slices"
	"strings"
	"testing"

	goprocfs "github.com/siderolabs/go-procfs/procfs"

	"github.com/nametag-boot/nametag/internal/kernelarg"
)

// A pair is what the kernel makes of an argument; without a value it ends in no "=".
func pairs(args []kernelarg.Arg) []string {
	said := []string{}
	for _, a := range args {
		pair := a.Name
		if a.HasValue {
			pair += "=" + a.Value
		}
		said = append(said, pair)
	}
	return said
}

// The lines are written after lib/cmdline.c and kernel/params.c of Linux 6.12. A boot shows that a real kernel does the
// same: TestARealKernelPartsItsLineSo in internal/testvm/talos.
func TestSplitIsTheKernels(t *testing.T) {
	for _, c := range []struct {
		name, line string
		args, rest []string
	}{
		{"nothing", "", []string{}, []string{}},
		{"white space only", " \t\n", []string{}, []string{}},
		{"white space of every kind", "a\tb\nc\vd\fe\rf  g ", []string{"a", "b", "c", "d", "e", "f", "g"}, []string{}},
		{"a blank of Latin-1 is one", "a\xa0b", []string{"a", "b"}, []string{}},
		{"so is a part of a letter of UTF-8", "x=\u00e0y", []string{"x=\xc3", "y"}, []string{}},
		{"a value", "a=b c=", []string{"a=b", "c="}, []string{}},
		{"the first = counts", "a=b=c", []string{"a=b=c"}, []string{}},
		{"one in front does not", "=a =b=c", []string{"=a", "=b=c"}, []string{}},
		{"quotes around a value", `a="b c" d`, []string{"a=b c", "d"}, []string{}},
		{"quotes around the whole", `"a=b c" d`, []string{"a=b c", "d"}, []string{}},
		{"quotes around a word", `"a b" c`, []string{"a b", "c"}, []string{}},
		{"quotes amid a value stay", `a=b"c d"e f`, []string{`a=b"c d"e`, "f"}, []string{}},
		{"of two at the end one stays", `a="b"" c`, []string{`a=b"" c`}, []string{}},
		{"a value that only begins with one", `a="b"c d`, []string{`a=b"c`, "d"}, []string{}},
		{"one that has no end goes to the line's", `a="b c -- d`, []string{"a=b c -- d"}, []string{}},
		{"an empty value in quotes", `a="" b`, []string{"a=", "b"}, []string{}},
		{"a quotation mark and nothing", `"`, []string{""}, []string{}},
		{"single quotes are letters", `a='b c'`, []string{"a='b", "c'"}, []string{}},
		{"a backslash too", `a=b\ c`, []string{`a=b\`, "c"}, []string{}},
		{"what stands behind -- is for init", "a -- b c=d", []string{"a"}, []string{"--", "b", "c=d"}},
		{"in quotes as well", `a "--" b`, []string{"a"}, []string{"--", "b"}},
		{"the first -- counts", "-- a -- b", []string{}, []string{"--", "a", "--", "b"}},
		{"one with a value is none", "--=a b", []string{"--=a", "b"}, []string{}},
		{"nor is a longer one", "--a b ---", []string{"--a", "b", "---"}, []string{}},
		{"one amid quotes is none", `a="b -- c" d`, []string{"a=b -- c", "d"}, []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args, rest := kernelarg.Split(c.line)
			if got := pairs(args); !slices.Equal(got, c.args) {
				t.Errorf("for the kernel: %q, not %q", got, c.args)
			}
			if got := pairs(rest); !slices.Equal(got, c.rest) {
				t.Errorf("for init: %q, not %q", got, c.rest)
			}
		})
	}
}

func TestAQuotationMarkWithoutAnEndIsTold(t *testing.T) {
	for line, open := range map[string]bool{`a="b c`: true, `a="b c"`: false, `"`: true, `"a" b="c" d`: false} {
		args, _ := kernelarg.Split(line)
		if last := args[len(args)-1]; last.Open != open {
			t.Errorf("%s: %+v", line, last)
		}
	}
}

func TestADashIsAnUnderscore(t *testing.T) {
	args, _ := kernelarg.Split("no-timer_check=1 other")
	if got := kernelarg.Named(args, "no_timer-check"); len(got) != 1 || got[0].Value != "1" {
		t.Errorf("%+v", got)
	}
}

// byPointers parts a line in place, as the kernel does with its buffer: another way to the same, to compare with.
func byPointers(line string) (pairs []string) {
	buffer := append([]byte(line), 0, 0)
	text := func(at int) string {
		end := at
		for buffer[end] != 0 {
			end++
		}
		return string(buffer[at:end])
	}
	blank := func(c byte) bool { return c == 0xa0 || c == ' ' || c >= '\t' && c <= '\r' }
	at := 0
	for blank(buffer[at]) {
		at++
	}
	for buffer[at] != 0 {
		whole := buffer[at] == '"'
		if whole {
			at++
		}
		start, equals, inside := at, 0, whole
		for ; buffer[at] != 0 && (inside || !blank(buffer[at])); at++ {
			if buffer[at] == '=' && equals == 0 && at > start {
				equals = at
			}
			if buffer[at] == '"' {
				inside = !inside
			}
		}
		more := buffer[at] != 0
		buffer[at] = 0
		value := -1
		if equals > 0 {
			buffer[equals] = 0
			if value = equals + 1; buffer[value] == '"' {
				if value++; buffer[at-1] == '"' {
					buffer[at-1] = 0
				}
			}
		}
		if whole && at > start && buffer[at-1] == '"' {
			buffer[at-1] = 0
		}
		pair := text(start)
		if value >= 0 {
			pair += "=" + text(value)
		}
		pairs = append(pairs, pair)
		if more {
			at++
		}
		for blank(buffer[at]) {
			at++
		}
	}
	return pairs
}

func FuzzSplit(f *testing.F) {
	for _, line := range []string{`a="b c" -- "d=e f"`, `="a`, `"a="b c"`, "a\xa0b=\"\"", `""="" "`, `a=" "`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsRune(line, 0) {
			return // it ends the kernel's line
		}
		args, rest := kernelarg.Split(line)
		all := slices.Concat(args, rest)
		if got, want := pairs(all), byPointers(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, not %q", line, got, want)
		}
		covered := 0
		for _, a := range all {
			if a.Start < covered || line[a.Start:a.End] != a.Text || a.Text == "" {
				t.Errorf("%q: %+v", line, a)
			}
			covered = a.End
		}
	})
}

// What Talos finds on a line, its own library says.
func FuzzFields(f *testing.F) {
	for _, line := range []string{`a="b c" -- d`, "a\u00a0b\u2003c", "a=b=c =d a\n", "\xa0x"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := kernelarg.Fields(line)
		if got, want := kernelarg.Texts(args), strings.Fields(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, not %q", line, got, want)
		}
		theirs := goprocfs.NewCmdline(line)
		first := map[string]bool{}
		for _, a := range args {
			if line[a.Start:a.End] != a.Text {
				t.Errorf("%q: %+v", line, a)
			}
			if !first[a.Name] {
				first[a.Name] = true
				if value := theirs.Get(a.Name).First(); value == nil || *value != a.Value {
					t.Errorf("%q: %+v is another's there", line, a)
				}
			}
		}
	})
}
