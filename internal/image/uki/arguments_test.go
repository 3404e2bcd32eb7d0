package uki

import (
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		name      string
		arguments Arguments
		line      string
		want      string
	}{
		{"nothing to do leaves the line as it is", Arguments{}, "a  b\tc", "a  b\tc"},
		{"appended", Arguments{Append: []string{"x=1", "y"}}, "a b", "a b x=1 y"},
		{"appended to nothing", Arguments{Append: []string{"x=1"}}, "", "x=1"},
		{"appended before --", Arguments{Append: []string{"x=1"}}, "a -- b", "a x=1 -- b"},
		{"there already", Arguments{Append: []string{"b"}}, "a  b c", "a  b c"},
		{"not there, though behind --", Arguments{Append: []string{"b"}}, "a -- b", "a b -- b"},
		{"another value of the name is another argument", Arguments{Append: []string{"console=ttyS0"}}, "console=tty0", "console=tty0 console=ttyS0"},
		{"replaced at its place, the others gone", Arguments{Replace: []string{"b=2"}}, "a b=1 c b=3", "a b=2 c"},
		{"replaced where there is none", Arguments{Replace: []string{"b=2"}}, "a -- b=1", "a b=2 -- b=1"},
		{"a dash is an underscore", Arguments{Replace: []string{"no_timer-check=2"}}, "no-timer_check", "no_timer-check=2"},
		{"removed", Arguments{Remove: []string{"b"}}, "a b=1 b bb c", "a bb c"},
		{"removed, replaced, appended", Arguments{Remove: []string{"a"}, Replace: []string{"b=2"}, Append: []string{"a"}}, "a b", "b=2 a"},
		{"quotes keep what they hold together", Arguments{Append: []string{`dyndbg="file x +p"`}}, `a="b c" "d=e f"`, `a="b c" "d=e f" dyndbg="file x +p"`},
		{"a quoted argument has a name too", Arguments{Remove: []string{"d"}}, `a "d=e f"`, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.arguments.Apply(c.line)
			if err != nil || got != c.want {
				t.Fatalf("%q, %v; not %q", got, err, c.want)
			}
			if c.arguments.Remove != nil && c.arguments.Append != nil {
				return
			}
			if again, err := c.arguments.Apply(got); err != nil || again != got {
				t.Errorf("done twice: %q, %v", again, err)
			}
		})
	}
	for _, c := range []struct {
		name      string
		arguments Arguments
		line      string
		want      string
	}{
		{"longer than the kernel keeps", Arguments{Append: []string{"x"}}, strings.Repeat("a", MaxCommandLine-1), "2048 bytes, and the kernel cuts it off after 2047"},
		{"a quotation mark without an end", Arguments{}, `a "b`, `"b" in`},
		{"an argument of two words", Arguments{Append: []string{"a b"}}, "", `"a b" is not one kernel argument`},
		{"the end of the arguments", Arguments{Append: []string{"--"}}, "", "is not one kernel argument"},
		{"nothing", Arguments{Replace: []string{""}}, "", "is not one kernel argument"},
		{"a character that the stub cannot pass on", Arguments{Append: []string{"name=ü"}}, "", "not printable ASCII"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.arguments.Apply(c.line)
			if err == nil || c.name != "a quotation mark without an end" && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v; not %q", got, err, c.want)
			}
		})
	}
}

func FuzzArguments(f *testing.F) {
	f.Add(`a="b c" -- d`, "x=1", "a")
	f.Add("\"", "--", "")
	f.Fuzz(func(t *testing.T, line, word, name string) {
		a := Arguments{Remove: []string{name}, Append: []string{word}}
		got, err := a.Apply(line)
		if err != nil {
			return
		}
		words, err := Split(got)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		found := false
		for _, w := range words {
			if w == "--" {
				break
			}
			found = found || w == word
		}
		if !found {
			t.Errorf("%q is not in %q", word, got)
		}
	})
}
