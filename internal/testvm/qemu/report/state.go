//go:build linux

package report

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// State is what a process of the guest finds around itself.
type State struct {
	Hostname    string   `json:"hostname"`
	CommandLine string   `json:"cmdline"` // /proc/cmdline, trimmed; "" without /proc
	Args        []string `json:"args,omitempty"`
	Env         []string `json:"env,omitempty"`
	Links       []string `json:"links,omitempty"`     // "eth0 up", "eth1 down", loopback left out
	Addresses   []string `json:"addresses,omitempty"` // "eth0 10.0.0.2/32", loopback's left out
	Routes      []string `json:"routes,omitempty"`    // "eth0 172.31.1.1/32", "eth0 0.0.0.0/0", of all tables but local
	Mounts      []string `json:"mounts,omitempty"`    // "TYPE ON", all of them
	Processes   []string `json:"processes,omitempty"` // "PID NAME", other than this one, the bench's and the kernel's threads
	Tracers     []string `json:"tracers,omitempty"`   // "TID by PID", of this process' threads
	Record      string   `json:"record,omitempty"`    // /run/nametag/identity.json
	Vendor      string   `json:"vendor,omitempty"`    // of the DMI, as far as there is a /sys
	Serial      string   `json:"serial,omitempty"`
	XFS         []string `json:"xfs,omitempty"`      // the devices that an XFS is mounted from, wherever that is
	NoRandom    bool     `json:"norandom,omitempty"` // the kernel's random numbers are not ready: getrandom(2) would wait
}

// Look takes the state, of what of /proc and /sys is there.
func Look() *State {
	s := &State{Args: os.Args, Env: os.Environ()}
	s.Hostname, _ = os.Hostname()
	cmdline, _ := os.ReadFile("/proc/cmdline")
	s.CommandLine = strings.TrimSpace(string(cmdline))
	record, _ := os.ReadFile("/run/nametag/identity.json")
	s.Record = string(record)
	s.Vendor, s.Serial = dmi("sys_vendor"), dmi("product_serial")
	_, err := unix.Getrandom(make([]byte, 1), unix.GRND_NONBLOCK)
	s.NoRandom = errors.Is(err, unix.EAGAIN)
	s.network()
	s.mounts()
	s.XFS = xfs()
	s.Processes = processes()
	s.Tracers = Tracers()
	return s
}

// xfs asks the kernel and not the table of mounts, which has only those of one namespace.
func xfs() []string {
	entries, _ := os.ReadDir("/sys/fs/xfs")
	var found []string
	for _, e := range entries {
		if name := e.Name(); name != "stats" && name != "debug" {
			found = append(found, name)
		}
	}
	return found
}

func dmi(name string) string {
	b, _ := os.ReadFile("/sys/class/dmi/id/" + name)
	return strings.TrimSpace(string(b))
}

func (s *State) network() {
	links, _ := net.Interfaces()
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 {
			continue
		}
		up := "down"
		if l.Flags&net.FlagUp != 0 {
			up = "up"
		}
		s.Links = append(s.Links, l.Name+" "+up)
		addresses, _ := l.Addrs()
		for _, a := range addresses {
			s.Addresses = append(s.Addresses, l.Name+" "+a.String())
		}
	}
	s.Routes = routes()
}

// routes is asked by netlink and not read from /proc, which is not there yet where it matters most.
func routes() []string {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil
	}
	defer conn.Close() //nolint:errcheck // a socket
	all, _ := conn.Route.List()
	var found []string
	for _, r := range all {
		if r.Table == unix.RT_TABLE_LOCAL {
			continue // the kernel's own, which come and go with the addresses
		}
		on, err := net.InterfaceByIndex(int(r.Attributes.OutIface))
		if err != nil || on.Flags&net.FlagLoopback != 0 {
			continue
		}
		to, ok := netip.AddrFromSlice(r.Attributes.Dst)
		if !ok { // a default route has none
			if to = netip.IPv4Unspecified(); r.Family == unix.AF_INET6 {
				to = netip.IPv6Unspecified()
			}
		}
		found = append(found, on.Name+" "+netip.PrefixFrom(to, int(r.DstLength)).String())
	}
	return found
}

func (s *State) mounts() {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := bufio.NewScanner(bytes.NewReader(info))
	for lines.Scan() {
		// proc(5): ID PARENT MAJ:MIN ROOT ON OPTIONS [FIELDS…] - TYPE SOURCE SUPER
		before, after, ok := strings.Cut(lines.Text(), " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if ok && len(f) > 4 && len(kind) > 0 {
			s.Mounts = append(s.Mounts, kind[0]+" "+f[4])
		}
	}
}

func processes() []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if pid == os.Getpid() {
			continue
		}
		if _, err := os.Readlink(dir + "/exe"); err != nil {
			continue // a thread of the kernel, or one that is gone, or a zombie
		}
		comm, _ := os.ReadFile(dir + "/comm")
		name := strings.TrimSpace(string(comm))
		if name == "prepare" {
			continue // the bench's own: it sets the clock, see guest/prepare
		}
		found = append(found, fmt.Sprintf("%d %s", pid, name))
	}
	sort.Strings(found)
	return found
}

// Tracers names the threads of this process that another one traces.
func Tracers() []string {
	files, _ := filepath.Glob("/proc/self/task/*/status")
	var found []string
	for _, file := range files {
		status, _ := os.ReadFile(file)
		for _, line := range strings.Split(string(status), "\n") {
			if by, ok := strings.CutPrefix(line, "TracerPid:"); ok && strings.TrimSpace(by) != "0" {
				found = append(found, filepath.Base(filepath.Dir(file))+" by "+strings.TrimSpace(by))
			}
		}
	}
	return found
}

// Mounted says whether anything is mounted on the path.
func (s *State) Mounted(on string) bool {
	for _, m := range s.Mounts {
		if _, where, _ := strings.Cut(m, " "); where == on {
			return true
		}
	}
	return false
}

// String is the state as one line, without what is empty.
func (s *State) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "hostname=%q cmdline=%q", s.Hostname, s.CommandLine)
	for _, list := range []struct {
		name  string
		items []string
	}{
		{"links", s.Links},
		{"addresses", s.Addresses},
		{"routes", s.Routes},
		{"processes", s.Processes},
		{"tracers", s.Tracers},
		{"args", s.Args},
		{"env", s.Env},
	} {
		if len(list.items) > 0 {
			fmt.Fprintf(&b, " %s=%q", list.name, list.items)
		}
	}
	if s.Record != "" {
		fmt.Fprintf(&b, " record=%q", s.Record)
	}
	return b.String()
}
