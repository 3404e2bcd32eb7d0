package start

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Snapshot is what a process has been given, by what it is called.
type Snapshot map[string]string

// Difference is every line by which two of them differ: what, the one's and the other's.
func (s Snapshot) Difference(other Snapshot) []string {
	both := maps.Clone(s)
	maps.Copy(both, other)
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(both)) {
		if s[what] != other[what] {
			lines = append(lines, fmt.Sprintf("%s: %q, not %q", what, other[what], s[what]))
		}
	}
	return lines
}

// passing are the lines of /proc/PID/status that say what a process did or does, and not what it was given.
var passing = []string{
	"Tgid", "Ngid", "Pid", "PPid", "TracerPid", "NStgid", "NSpid", "SigQ", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches",
	"VmPeak", "VmSize", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk", "VmExe", "VmLib", "VmPTE",
}

// look takes the snapshot of a process that stands still, in the root that is given.
func look(pid int, root string) (Snapshot, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	s := Snapshot{}
	for _, name := range []string{
		"comm", "cmdline", "environ", "limits", "oom_score_adj", "oom_adj", "personality", "coredump_filter", "timerslack_ns",
		"loginuid", "sessionid", "uid_map", "gid_map", "setgroups", "cgroup", "attr/current", "cpuset", "autogroup", "wchan", "timers",
	} {
		b, err := os.ReadFile(dir + name)
		if err != nil {
			continue // this kernel has it not
		}
		s[name] = string(b)
	}
	s["autogroup"] = "" // a number for each session that there ever was
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); !slices.Contains(passing, name) {
			s["status "+name] = strings.TrimSpace(value)
			if name == "SigPnd" {
				s["status "+name] = withoutUrgent(s["status "+name])
			}
		}
	}
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return nil, err
	}
	// proc(5), from the third field on: state, ppid, pgrp, session, tty_nr, tpgid, flags …
	_, rest, _ := strings.Cut(string(stat), ") ")
	for i, field := range strings.Fields(rest) {
		name, ok := map[int]string{
			4 - 3: "", 5 - 3: "process group", 6 - 3: "session", 7 - 3: "terminal", 8 - 3: "its foreground", 18 - 3: "priority", 19 - 3: "nice",
			20 - 3: "threads", 38 - 3: "exit signal", 40 - 3: "real-time priority", 41 - 3: "policy",
		}[i]
		if ok && name != "" {
			s[name] = field
		}
	}
	for _, name := range []string{"exe", "cwd", "root"} {
		to, err := os.Readlink(dir + name)
		if err != nil {
			return nil, err
		}
		s[name] = inside(to, root)
	}
	if s["executed as"], err = executedAs(dir); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		to, _ := os.Readlink(dir + "fd/" + f.Name())
		info, _ := os.ReadFile(dir + "fdinfo/" + f.Name())
		lines := strings.Split(string(info), "\n")
		s["file "+f.Name()] = inside(to, root) + " " + lines[min(1, len(lines)-1)] // its flags
	}
	children, _ := os.ReadFile(fmt.Sprintf("%stask/%d/children", dir, pid))
	for _, child := range strings.Fields(string(children)) {
		comm, _ := os.ReadFile("/proc/" + child + "/comm")
		s["child "+strings.TrimSpace(string(comm))] = "runs"
	}
	mounts, err := os.ReadFile(dir + "mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		kind, _, _ := strings.Cut(after, " ")
		if f := strings.Fields(before); len(f) > 4 {
			s["mount "+f[4]] = kind + " " + f[5]
		}
	}
	if s["namespaces"], err = namespaces(dir); err != nil {
		return nil, err
	}
	files2, err := shape(root)
	for name, what := range files2 {
		s["entry "+name] = what
	}
	return s, err
}

// withoutUrgent leaves SIGURG out of a set of signals that are pending. Go's runtime preempts its threads by it; the kernel
// drops it, since nobody has a handler for it after an exec, before the program's first instruction.
func withoutUrgent(set string) string {
	n, err := strconv.ParseUint(set, 16, 64)
	if err != nil {
		return set
	}
	return fmt.Sprintf("%016x", n&^(1<<(unix.SIGURG-1)))
}

// namespaces are those that it shares with us.
func namespaces(dir string) (string, error) {
	entries, err := os.ReadDir(dir + "ns")
	if err != nil {
		return "", err
	}
	var shared []string
	for _, e := range entries {
		its, _ := os.Readlink(dir + "ns/" + e.Name())
		if ours, _ := os.Readlink("/proc/self/ns/" + e.Name()); its == ours {
			shared = append(shared, e.Name())
		}
	}
	return strings.Join(shared, " "), nil
}

func inside(path, root string) string {
	if rest, ok := strings.CutPrefix(path, root); ok {
		return filepath.Clean("/" + rest)
	}
	return path
}

// executedAs is the path that the kernel was given (AT_EXECFN of getauxval(3)).
func executedAs(dir string) (string, error) {
	auxv, err := os.ReadFile(dir + "auxv")
	if err != nil {
		return "", err
	}
	const execfn = 31
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.NativeEndian.Uint64(auxv) != execfn {
			continue
		}
		mem, err := os.Open(dir + "mem")
		if err != nil {
			return "", err
		}
		defer mem.Close() //nolint:errcheck // opened for reading
		text := make([]byte, 64)
		n, err := mem.ReadAt(text, int64(binary.NativeEndian.Uint64(auxv[8:]))) //nolint:gosec // an address
		if n == 0 {
			return "", err
		}
		path, _, _ := strings.Cut(string(text[:n]), "\x00")
		return path, nil
	}
	return "", nil
}

func describe(mode uint32, size int64, target string) string {
	return fmt.Sprintf("%#o %d %s", mode&(unix.S_IFMT|0o7777), size, target)
}
