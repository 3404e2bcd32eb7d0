package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Unavailable says that namespaces cannot be had here, and what to do about it.
type Unavailable struct {
	// Reason is why, as far as it can be told.
	Reason string
	// Remedy is one line that tells what to do, a command where there is one.
	Remedy string
	// Err is what the kernel said.
	Err error
}

// Error is one line with the remedy.
func (e *Unavailable) Error() string {
	return fmt.Sprintf("netns: no namespaces here: %s (%v); %s", e.Reason, e.Err, e.Remedy)
}

// Unwrap returns what the kernel said.
func (e *Unavailable) Unwrap() error { return e.Err }

// unavailable finds the reason for a failure in the switches that distributions know.
func unavailable(err error) error {
	already := new(Unavailable)
	if errors.As(err, &already) {
		return err
	}
	u := &Unavailable{Err: err}
	switch {
	case setting("/proc/sys/user/max_user_namespaces") == "0":
		u.Reason = "user namespaces are switched off"
		u.Remedy = "run as root, or: sudo sysctl user.max_user_namespaces=15000"
	case setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		u.Reason = "user namespaces are for root only"
		u.Remedy = "run as root, or: sudo sysctl kernel.unprivileged_userns_clone=1"
	case setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		u.Reason = "AppArmor restricts user namespaces"
		u.Remedy = "run as root, or: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	case setting("/proc/sys/user/max_net_namespaces") == "0":
		u.Reason = "network namespaces are switched off"
		u.Remedy = "sudo sysctl user.max_net_namespaces=15000"
	case errors.Is(err, unix.ENOSPC):
		u.Reason = "the limit of namespaces is reached"
		u.Remedy = "raise user.max_user_namespaces and user.max_net_namespaces with sysctl"
	default:
		u.Reason = "the system refuses them"
		u.Remedy = "run as root; in a container, run it privileged or with a seccomp profile that allows unshare and mount"
	}
	return u
}

func setting(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}
