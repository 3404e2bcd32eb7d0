//go:build linux

package handover

import (
	"fmt"
	"strings"

	goprocfs "github.com/siderolabs/go-procfs/procfs"

	"github.com/nametag-boot/nametag/internal/kernelarg"
)

// parameter is what Talos reads its name from.
const parameter = "talos.hostname"

// amend returns the command line with the name on it, as /proc/cmdline would show
// it: ended by a line feed. The kernel's bound, COMMAND_LINE_SIZE, is no
// concern: it bounds what a boot loader may pass, and the file that Talos reads
// whole is ours.
func amend(line, name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	// A NUL ends the kernel's own line: there is none in what it shows. An end of a line that a boot loader has passed is
	// white space to the kernel and to Talos, as a blank is.
	line = strings.TrimRight(line, "\n")
	if strings.Contains(line, "\x00") {
		return "", fmt.Errorf("the command line is not text: it has a zero byte in it")
	}
	argument := parameter + "=" + name
	switch other := goprocfs.NewCmdline(line).Get(parameter).First(); {
	case other == nil:
		line += " " + argument
	case *other == "":
		// As a template leaves it whose variable is empty. It names nobody, and ours must come first.
		line = replaceFirst(line, parameter, argument)
	default:
		return "", fmt.Errorf("the command line has %s=%s already, which is the operator's choice", parameter, *other)
	}
	return strings.TrimLeft(line, " \t") + "\n", nil
}

// replaceFirst puts an argument in the place of the first one of a name, as Talos finds
// it.
func replaceFirst(line, name, argument string) string {
	for _, a := range kernelarg.Fields(line) {
		if a.Name == name {
			return line[:a.Start] + argument + line[a.End:]
		}
	}
	return line
}

// short is the first label of a name, which is what Talos gives the kernel.
func short(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}
