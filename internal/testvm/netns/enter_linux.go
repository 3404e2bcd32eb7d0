package netns

import (
	"os"

	"golang.org/x/sys/unix"
)

// Enter makes sure that this process may call [New] and [Plug]. With the rights for it (root, as a rule) it returns nil
// at once. Without, it runs the program again, with the same arguments, in a user namespace in which the caller is root,
// and does not return in the first process: standard streams are shared, signals are passed on, and the first process
// ends as the second one does. So call it first thing, before anything that should happen only once.
//
// In the user namespace files belong to the caller as before, and only the caller's own user exists.
//
// The error is an *[Unavailable] where the system does not allow user namespaces.
func Enter() error {
	again, err := reborn(func() error { return nil })
	if err != nil {
		return unavailable(err)
	}
	if privileged() {
		return nil
	}
	if again {
		return unavailable(unix.EPERM) // in a user namespace, but without its rights
	}
	state, err := reexec(unix.CLONE_NEWUSER)
	if err != nil {
		return err
	}
	exitAs(state)
	return os.ErrProcessDone // exitAs does not return
}
