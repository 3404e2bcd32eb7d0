package handover

import (
	"fmt"
	"strings"

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
	if other := goprocfs.NewCmdline(line).Get(parameter).First(); other != nil {
		return "", fmt.Errorf("the command line has %s=%s already, which is the operator's choice", parameter, *other)
	}
	// A NUL would be a field of its own to no one; a second line would not be read.
	if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\n\x00") {
		return "", fmt.Errorf("the command line is not one line of text")
	}
	return strings.TrimLeft(strings.TrimSuffix(line, "\n")+" ", " ") + parameter + "=" + name + "\n", nil
}

// short is the first label of a name, which is what Talos gives the kernel.
func short(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}
