//go:build linux

package talos_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/kernelarg"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// given boots with these arguments, and returns what the init was given.
func given(t *testing.T, args []string) (line, arguments, environment string) {
	t.Helper()
	v := qemu.Boot(t, qemu.Scenario{OS: talos.Plain{}, Args: args, NICs: []qemu.NIC{}})
	got := map[string]string{}
	for _, e := range v.All(report.Given) {
		got[e.Name] = e.Text
	}
	return got["line"], got["arguments"], got["environment"]
}

// forInit is what the kernel gives its init of a line, by package kernelarg, if it knows none of it itself: words as
// arguments, what has a value in the environment, and all that stands behind a "--" as arguments.
func forInit(line string) (arguments, environment string) {
	pair := func(a kernelarg.Arg) string {
		if a.HasValue {
			return a.Name + "=" + a.Value
		}
		return a.Name
	}
	args, rest := kernelarg.Split(line)
	words, environ := []string{}, []string{"HOME=/", "TERM=linux"}
	for _, a := range args {
		if a.HasValue {
			environ = append(environ, pair(a))
		} else {
			words = append(words, pair(a))
		}
	}
	for _, a := range rest[min(1, len(rest)):] {
		if a.Name == "--" && !a.HasValue { // init gets nothing from behind a second one
			break
		}
		words = append(words, pair(a))
	}
	return fmt.Sprintf("%q", words), fmt.Sprintf("%q", environ)
}

func TestARealKernelPartsItsLineSo(t *testing.T) {
	t.Parallel()
	odd := []string{
		"word", "x_a=b=c", `x_b="d e"`, `"x_c=f g"`, `"two words"`, `x_d=h"i j"k`, `x_e="l"m`, `x_f=""`, "x_g=", "=x_h", "x_i=\u00e0y", "x-j=n",
		"x_k='o", "p'", "\t\v", "--more",
	}
	check := func(args []string) (line string) {
		t.Helper()
		line, words, environment := given(t, args)
		if !strings.Contains(line, " ") {
			t.Fatal("nothing was told")
		}
		wantWords, wantEnvironment := forInit(strings.Join(args, " "))
		if words != wantWords {
			t.Errorf("the arguments are %s, not %s", words, wantWords)
		}
		if environment != wantEnvironment {
			t.Errorf("the environment is %s, not %s", environment, wantEnvironment)
		}
		return line
	}
	line := check(odd)
	check([]string{"word", "--", "x_a=b", `x_b="c d"`, "--", "e"})
	// The same with as many bytes as it may have.
	long := "x_z=" + strings.Repeat("z", kernelarg.MaxLine-len(line)-len(" x_z="))
	if line = check(append(slices.Clone(odd), long)); len(line) != kernelarg.MaxLine {
		t.Errorf("the line has %d bytes", len(line))
	}
}
