//go:build linux

package handover

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// target is the file of a procfs that is covered.
const target = "cmdline"

// stage is where the tmpfs is mounted for the moment in which its file is made.
const stage = "/.nametag-handover"

// newTree makes an empty file on a tmpfs of its own. It returns the file as a mount
// that is attached nowhere, and open for writing. A file of the initramfs would not
// do: the next init deletes those. The tmpfs lives as long as the mount does.
//
// The tmpfs is mounted in the open for a moment: before Linux 6.15, open_tree
// clones nothing that is mounted nowhere.
func newTree() (tree int, f *os.File, err error) {
	if err := os.Mkdir(stage, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return -1, nil, err
	}
	tree, f, err = onStage()
	if rerr := os.Remove(stage); err == nil && rerr != nil {
		closeFD(tree)
		f.Close()
		return -1, nil, rerr
	}
	return tree, f, err
}

func onStage() (tree int, f *os.File, err error) {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("nametag", stage, "tmpfs", flags, "mode=0755,size=64k,nr_inodes=8"); err != nil {
		return -1, nil, &os.PathError{Op: "mount tmpfs", Path: stage, Err: err}
	}
	// Lazily, since the file is open. It cannot fail for a mount that was just made.
	defer func() { _ = unix.Unmount(stage, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }()
	name := stage + "/" + target
	f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return -1, nil, err
	}
	if err := f.Chmod(0o444); err != nil { // as the real one, whatever the umask
		f.Close()
		return -1, nil, err
	}
	tree, err = unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		f.Close()
		return -1, nil, &os.PathError{Op: "open_tree", Path: name, Err: err}
	}
	return tree, f, nil
}

// bind mounts the tree onto p's command line and reads it back. Where it is
// mounted already, that is found and nothing is done.
func (p procRoot) bind(tree int, text string) error {
	if p.shows(text) {
		return nil
	}
	if err := unix.MoveMount(tree, "", int(p), target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: procPath + "/" + target, Err: err}
	}
	if !p.shows(text) {
		return joined.Errors(errors.New("mounted on "+procPath+"/"+target+", and it reads otherwise"), p.unbind(text))
	}
	return nil
}

// shows reports whether p's command line reads as text.
func (p procRoot) shows(text string) bool {
	got, err := p.read(target)
	return err == nil && string(got) == text
}

// detach takes away the mount that the tree is, wherever it is now: the descriptor leads there, also where no procfs is held
// that it lies on. p is one of our own. A tree that is mounted nowhere is left as it is. It changes the working directory of
// the process.
func (p procRoot) detach(tree int) error {
	if err := unix.Fchdir(int(p)); err != nil {
		return &os.PathError{Op: "fchdir", Path: procPath, Err: err}
	}
	err := unix.Unmount(fmt.Sprintf("self/fd/%d", tree), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: it is not mounted here
		return &os.PathError{Op: "unmount", Path: procPath + "/" + target, Err: err}
	}
	return nil
}

// unbind takes the mount away again. p may have been moved to another root since, where no
// absolute path of ours leads: so the path is relative to p. It changes the working
// directory of the process.
func (p procRoot) unbind(text string) error {
	if err := unix.Fchdir(int(p)); err != nil {
		return &os.PathError{Op: "fchdir", Path: procPath, Err: err}
	}
	// Twice at most: once by each of the two processes, in the worst of races.
	for range 2 {
		if !p.shows(text) {
			return nil
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: procPath + "/" + target, Err: err}
		}
	}
	if p.shows(text) {
		return fmt.Errorf("%s/%s reads as before after the unmount", procPath, target)
	}
	return nil
}
