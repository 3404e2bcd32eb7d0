//go:build linux

package handover

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/detached"
)

// procPath is where the next init mounts its procfs.
const procPath = "/proc"

// A procRoot is a mounted procfs, held by a descriptor of its root. It serves
// wherever that mount has been moved to, and when it is mounted nowhere.
type procRoot int

// detachedProc makes a procfs that is mounted nowhere, so that it needs no folder and
// is in nobody's way.
func detachedProc() (procRoot, error) {
	fd, err := detached.Mount{Type: "proc", Attributes: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}.Open()
	return procRoot(fd), err
}

// open opens a file by its path below p.
func (p procRoot) open(name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(int(p), name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR { //nolint:errorlint // an errno, as the call returns it
			return fd, err
		}
	}
}

// read returns a file's content.
func (p procRoot) read(name string) ([]byte, error) {
	fd, err := p.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: procPath + "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), procPath+"/"+name)
	defer f.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(f)
	return b.Bytes(), err
}

// threads lists the threads of a process.
func (p procRoot) threads(pid int) ([]int, error) {
	name := strconv.Itoa(pid) + "/task"
	fd, err := p.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: procPath + "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), procPath+"/"+name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	tids := make([]int, 0, len(names))
	for _, n := range names {
		tid, err := strconv.Atoi(n)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", procPath, name, err)
		}
		tids = append(tids, tid)
	}
	return tids, nil
}

// children lists the processes that a process has started. None, where the kernel does not tell.
func (p procRoot) children(pid int) (pids []int) {
	tids, err := p.threads(pid)
	if err != nil {
		return nil
	}
	for _, tid := range tids {
		text, err := p.read(fmt.Sprintf("%d/task/%d/children", pid, tid))
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(text) {
			if child, err := strconv.Atoi(string(f)); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// tracerOf says which thread traces a thread of process pid, 0 for none. A thread
// that is gone is traced by none.
func (p procRoot) tracerOf(pid, tid int) (int, error) {
	status, err := p.read(fmt.Sprintf("%d/task/%d/status", pid, tid))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	v, err := field(status, "TracerPid:")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(v)
}

// mountID is the id of the mount that a descriptor of this process is on. It is
// unique as long as the descriptor is open.
func (p procRoot) mountID(fd int) (string, error) {
	info, err := p.read(fmt.Sprintf("self/fdinfo/%d", fd))
	if err != nil {
		return "", err
	}
	return field(info, "mnt_id:")
}

// field finds "key value" in lines.
func field(text []byte, key string) (string, error) {
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), key); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("no %s", key)
}

// at opens the procfs that is mounted on /proc now, if there is one and it is not
// the mount with the id stale. The caller closes it.
func (p procRoot) at(stale string) (found procRoot, id string, ok bool) {
	fd, err := unix.Open(procPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", false
	}
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC {
		if id, err := p.mountID(fd); err == nil && id != stale {
			return procRoot(fd), id, true
		}
	}
	closeFD(fd)
	return -1, "", false
}

// stale is the id of the mount that is on /proc before the next init runs, empty
// if there is none. The descriptor stays open as long as the process lives, so that
// the kernel does not give the id to another mount.
func (p procRoot) stale() string {
	_, id, _ := p.at("")
	return id
}

func (p procRoot) close() {
	if p >= 0 {
		closeFD(int(p))
	}
}

// closeFD closes a descriptor that nothing was written through.
func closeFD(fd int) { _ = unix.Close(fd) }
