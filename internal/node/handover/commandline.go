//go:build linux

package handover

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	goprocfs "github.com/siderolabs/go-procfs/procfs"

	"github.com/nametag-boot/nametag/identity"
)

// parameter is what Talos reads its name from.
const parameter = "talos.hostname"

// amend returns the command line with the name on it, as /proc/cmdline would show
// it: one line, ended by a line feed. The kernel's bound, COMMAND_LINE_SIZE, is no
// concern: it bounds what a boot loader may pass, and the file that Talos reads
// whole is ours.
func amend(line, name string) (string, error) {
	if err := identity.ValidateHostname(name); err != nil {
		return "", err
	}
	// A NUL would be a field of its own to no one; a second line would not be read.
	line = strings.TrimSuffix(line, "\n")
	if strings.ContainsAny(line, "\n\x00") {
		return "", fmt.Errorf("the command line is not one line of text")
	}
	argument := parameter + "=" + name
	switch other := goprocfs.NewCmdline(line).Get(parameter).First(); {
	case other == nil:
		line += " " + argument
	case *other == "":
		// As a template leaves it whose variable is empty. It names nobody, and ours must come first.
		at, end := locate(line, parameter+"=", parameter)
		line = line[:at] + argument + line[end:]
	default:
		return "", fmt.Errorf("the command line has %s=%s already, which is the operator's choice", parameter, *other)
	}
	return strings.TrimLeft(line, " \t") + "\n", nil
}

// locate returns where the first of the arguments stands on a line.
func locate(line string, arguments ...string) (at, end int) {
	for end < len(line) {
		rest := strings.TrimLeftFunc(line[end:], unicode.IsSpace)
		at = len(line) - len(rest)
		end = len(line)
		if n := strings.IndexFunc(rest, unicode.IsSpace); n >= 0 {
			end = at + n
		}
		if slices.Contains(arguments, line[at:end]) {
			return at, end
		}
	}
	return len(line), len(line)
}

// short is the first label of a name, which is what Talos gives the kernel.
func short(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}
