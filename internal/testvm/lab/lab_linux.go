package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// behaviour is the metadata service's behaviour of that name.
func behaviour(name string) (cloud.Behaviour, error) {
	switch name {
	case "unreachable":
		return cloud.Unreachable(), nil
	case "dropped":
		return cloud.Dropped(), nil
	case "refused":
		return cloud.Refused(), nil
	case "silent":
		return cloud.Silent(), nil
	}
	var status int
	if _, err := fmt.Sscanf(name, "%d", &status); err == nil && status >= 100 && status <= 599 && fmt.Sprint(status) == name {
		return cloud.Status(status), nil
	}
	return cloud.Behaviour{}, fmt.Errorf("--metadata-until-then %s: choose %s, or an HTTP status such as 503", name, strings.Join(Behaviours(), ", "))
}

// shape is the network of that name.
func shape(name string) (cloud.Shape, error) {
	for _, s := range []cloud.Shape{cloud.Public, cloud.Private, cloud.IPv6Only, cloud.Dead} {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("--shape %s: choose %s", name, strings.Join(Shapes(), ", "))
}

// config is the cloud that the flags describe, but for its capture.
func (o Options) config() (cloud.Config, []cloud.NIC, error) {
	impairment := cloud.Impairment{Loss: o.Loss, Duplicate: o.Duplicate, Reorder: o.Reorder, Corrupt: o.Corrupt}
	cfg := cloud.Config{
		Server: cloud.Server{Hostname: o.Hostname, InstanceID: o.InstanceID},
		Link:   cloud.Link{RTT: o.RTT, Up: impairment, Down: impairment},
		Seed:   o.Seed,
	}
	until, err := behaviour(o.MetadataUntil)
	if err != nil {
		return cfg, nil, err
	}
	if o.MetadataAfter > 0 {
		cfg.Metadata = []cloud.Phase{{Until: o.MetadataAfter, Answer: until}}
	}
	var nics []cloud.NIC
	for i, name := range o.Shapes {
		s, err := shape(name)
		if err != nil {
			return cfg, nil, err
		}
		nics = append(nics, cloud.NIC{Name: fmt.Sprintf("eth%d", i), Shape: s})
	}
	return cfg, nics, nil
}

// checkWords is Check for those options that are words.
func (o Options) checkWords() error {
	_, _, err := o.config()
	return err
}

// Run makes the lab and runs the command in it. Where it does not end with status 0, the error is an *ExitError.
func Run(o Options, args []string) (err error) {
	failed := func(err error) error { return &ExitError{StatusFailed, err} }
	cfg, nics, err := o.config()
	if err != nil {
		return failed(err)
	}
	if err := netns.Enter(); err != nil {
		return failed(err)
	}
	if o.Tree != "" {
		root, err := os.OpenRoot(o.Tree)
		if err != nil {
			return failed(fmt.Errorf("--tree: %w", err))
		}
		defer root.Close() //nolint:errcheck // nothing was written
		cfg.Documents = tree{root.FS()}
	}
	if o.Pcap != "" {
		file, err := os.Create(o.Pcap)
		if err != nil {
			return failed(err)
		}
		defer func() {
			if cerr := file.Close(); cerr != nil && err == nil {
				err = failed(cerr)
			}
		}()
		cfg.Pcap = file
	}

	lab, err := startLab(cfg, netns.Options{}, nics...)
	if err != nil {
		return failed(err)
	}
	defer func() {
		if cerr := lab.Close(); cerr != nil && err == nil {
			err = failed(cerr)
		}
	}()

	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it ends by itself or by the signals that are passed on
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The machine's firmware is not that of a server in this cloud.
	facts, err := os.MkdirTemp("", "nametag-lab-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(facts)                      //nolint:errcheck // ours
	if err := os.Chmod(facts, 0o755); err != nil { //nolint:gosec // the command may give up its rights
		return failed(err)
	}
	if err := lab.cloud.WriteDMI(facts); err != nil {
		return failed(err)
	}
	cmd.Env = append(os.Environ(), dmi.DirVariable+"="+facts)
	return lab.run(cmd)
}

// A lab is a node with its NICs plugged into a fake cloud.
type lab struct {
	cloud *cloud.Cloud
	node  *netns.Node
}

// startLab makes a node and plugs it into a new cloud.
func startLab(cfg cloud.Config, node netns.Options, nics ...cloud.NIC) (*lab, error) {
	c, err := cloud.New(cfg)
	if err != nil {
		return nil, err
	}
	l := &lab{cloud: c}
	if l.node, err = Plug(c, node, nics...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.Restart()
	return l, nil
}

// Plug makes a node whose NICs are down and plugged into the cloud.
func Plug(c *cloud.Cloud, options netns.Options, nics ...cloud.NIC) (*netns.Node, error) {
	node, err := netns.New(options)
	if err != nil {
		return nil, err
	}
	for _, nic := range nics {
		port, err := node.Plug(nic.Name)
		if err == nil {
			err = c.Attach(nic, port)
		}
		if err != nil {
			return nil, errors.Join(err, node.Close())
		}
	}
	return node, nil
}

// Close takes node and cloud down.
func (l *lab) Close() error { return errors.Join(l.node.Close(), l.cloud.Close()) }

// inForeground says whether this process' group is the one that its terminal interrupts.
func inForeground() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false // there is none
	}
	defer terminal.Close()
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP) //nolint:gosec // a descriptor
	return err == nil && group == unix.Getpgrp()
}

// run runs a command on the node; its exit status comes back as an *ExitError.
func (l *lab) run(cmd *exec.Cmd) error {
	// A terminal's interrupt reaches the command as well: it decides. What is sent to the lab alone is passed on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	// What the command leaves running, as a DHCP client that goes into the background, becomes this process' to end: its
	// network ends now.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return &ExitError{StatusFailed, os.NewSyscallError("prctl", err)}
	}
	defer endChildren()
	if err := l.node.Start(cmd); err != nil {
		switch {
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
			return &ExitError{StatusNotFound, err}
		case errors.Is(err, fs.ErrPermission):
			return &ExitError{StatusNotRun, err}
		}
		return &ExitError{StatusFailed, err}
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGTERM || s == syscall.SIGHUP || !inForeground() {
					_ = cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()

	err := cmd.Wait()
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return &ExitError{StatusFailed, err}
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &ExitError{statusOfSignal + int(ws.Signal()), nil}
	}
	return &ExitError{exit.ExitCode(), nil}
}

// endChildren ends all children of this process, and theirs, which come to it when theirs ends.
func endChildren() {
	for {
		all := children()
		if len(all) == 0 {
			return
		}
		for _, child := range all {
			_ = unix.Kill(child, unix.SIGKILL)
			_, _ = unix.Wait4(child, nil, 0, nil)
		}
	}
}

// children are the children of this process now.
func children() []int {
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var all []int
	for _, stat := range dirs {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		// "PID (NAME) STATE PARENT …", where the name may have any bytes in it.
		pid, _, _ := strings.Cut(string(text), " ")
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if n, err := strconv.Atoi(pid); err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			all = append(all, n)
		}
	}
	return all
}
