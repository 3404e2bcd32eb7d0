//go:build linux

package handover

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity"
)

// maxHostname is the kernel's limit for its own hostname, __NEW_UTS_LEN.
const maxHostname = 64

// unnamed is the hostname that the kernel starts with (UTS_NODENAME).
const unnamed = "(none)"

// check is the second look at a name, before it takes effect. The first was where it came
// in, against the network or a disk (identity.Resolve, package memory). Since then another
// process has had it, which talked to strangers and is not to be trusted by one that must
// not be wrong. Nobody looks a third time.
func check(name string) error { return identity.ValidateHostname(name) }

// ErrPermission means that this process may not set the hostname.
var ErrPermission = errors.New("not permitted: needs CAP_SYS_ADMIN (run as root)")

// SetHostname sets the kernel's hostname, for an operating system that takes what
// it finds. A name that is longer than the kernel's 64 bytes is cut to its first
// label. It returns what was set, as the kernel tells it.
func SetHostname(name string) (string, error) {
	if err := check(name); err != nil {
		return "", fmt.Errorf("handover: setting the hostname: %w", err)
	}
	if len(name) > maxHostname {
		name = short(name)
	}
	return setHostname(name)
}

// localhost is what a machine without a name is called (hostname(5)). It is no machine's name: [SetHostname] refuses it.
const localhost = "localhost"

// UnsetHostname takes the kernel's hostname away: the machine is called "localhost" then.
func UnsetHostname() error {
	_, err := setHostname(localhost)
	return err
}

func setHostname(name string) (string, error) {
	if err := unix.Sethostname([]byte(name)); err != nil {
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w: %w", ErrPermission, err)
		}
		return "", fmt.Errorf("handover: setting the hostname %q: %w", name, err)
	}
	if got := hostname(); got != name {
		return got, fmt.Errorf("handover: set the hostname %q, and the kernel says %q", name, got)
	}
	return name, nil
}

// hostname is the kernel's. It asks uname, not /proc, which a SELinux policy may
// guard.
func hostname() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Nodename[:])
}
