//go:build linux

// Command demo shows the promise whole, from nothing, on this machine: a server of the fake Hetzner cloud whose etcd member and Node
// get a name that nobody gave it, and three that start with nametag. etcd, kube-apiserver and kubelet are the real ones.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/cluster/command"
	"github.com/nametag-boot/nametag/cluster/lab"
	"github.com/nametag-boot/nametag/internal/testvm/controlplane"
)

func main() {
	n := flag.Int("figures", 0, "instead: boot a server so many times in each of four ways, and print how long it took")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if tools := controlplane.Handed(); tools != nil {
		err = demo(ctx, os.Stdout, tools, *n)
	} else {
		err = again(ctx)
	}
	stop()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo-cluster:", err)
		os.Exit(1)
	}
}

// again runs the program in namespaces of its own: what it does to the network there nobody else has.
func again(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("a server here is a set of namespaces with a kubelet in them, which needs root: sudo make demo-cluster; make demo needs no root")
	}
	fmt.Fprintln(os.Stderr, "demo-cluster: building the programs (the first time etcd, kube-apiserver and kubelet are built from their sources: about 20 minutes)")
	tools, err := controlplane.FindPrograms(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if err := tools.Hand(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...) //nolint:gosec // this program
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	err = cmd.Run()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("new namespaces are refused (%w): run this on the machine itself, or in a container that is privileged", err)
	}
	return err
}

// patience is how long anything of the demo may take; it takes seconds on a machine that is idle.
const patience = 8 * time.Minute

// A show is the demo while it runs.
type show struct {
	out   io.Writer
	began time.Time
	tools *controlplane.Programs

	mu        sync.Mutex
	complaint error // the controllers' last one
}

func (s *show) complain(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complaint = err
}

func (s *show) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func demo(ctx context.Context, out io.Writer, tools *controlplane.Programs, figures int) error {
	s := &show{out: out, tools: tools, began: time.Now()}
	if figures > 0 {
		return s.figures(ctx, figures)
	}
	if err := s.act(ctx, "Without nametag, as Talos boots: the metadata service answers late.", s.without); err != nil {
		return err
	}
	return s.act(ctx, "With nametag: three servers, from nothing to a control plane. The metadata service is as late.", s.with)
}

func (s *show) act(ctx context.Context, title string, play func(context.Context, *controlplane.Cluster) error) (err error) {
	fmt.Fprintf(s.out, "\n== %s\n\n", title)
	c, err := controlplane.New(ctx, s.tools)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = play(bounded, c)
	if err != nil && ctx.Err() == nil { // nobody has interrupted it
		for _, server := range c.Servers() {
			fmt.Fprintln(os.Stderr, server.Log())
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.complaint != nil {
			fmt.Fprintln(os.Stderr, "the controllers said last:", s.complaint)
		}
	}
	return err
}

// waits waits for something that is read again and again.
func waits(ctx context.Context, c *controlplane.Cluster, what string, f func() (bool, error)) error {
	for {
		ok, err := f()
		if ok {
			return nil
		}
		for _, s := range c.Servers() {
			if why := s.Failed(); why != "" {
				return fmt.Errorf("%s cannot go on: %s", s.Name(), why)
			}
			if s.Ended() {
				return fmt.Errorf("%s has ended: %s", s.Name(), s.Said())
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s", what), ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *show) controllers(ctx context.Context, c *controlplane.Cluster, through *controlplane.Server) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Controllers(ctx, through, s.complain); err != nil {
			s.complain(err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

const first = "example-controlplane-3d3d26d1-69c5k"

func (s *show) without(ctx context.Context, c *controlplane.Cluster) error {
	server, err := c.Create(first)
	if err != nil {
		return err
	}
	server.Metadata(false)
	if err := server.Boot(ctx, ""); err != nil {
		return err
	}
	s.say("the server %s boots", server.Name())
	stop := s.controllers(ctx, c, server)
	defer stop()
	if err := waits(ctx, c, "a member", func() (bool, error) {
		m, err := c.Members(ctx, server)
		return err == nil && len(m) == 1 && m[0].Name != "", err
	}); err != nil {
		return err
	}
	s.say("etcd is up, as %s", server.Named())
	if err := waits(ctx, c, "a node", func() (bool, error) {
		n, err := c.Nodes(ctx, server)
		return err == nil && len(n) == 1 && n[0].Ready, err
	}); err != nil {
		return err
	}
	s.say("the kubelet is up, as %s", server.Named())
	server.Metadata(true)
	s.say("the metadata service answers")
	if err := waits(ctx, c, "a second node", func() (bool, error) {
		nodes, err := c.Nodes(ctx, server)
		for _, n := range nodes {
			if n.Name == server.Name() && n.Ready && !n.Uninitialized {
				return true, nil
			}
		}
		return false, err
	}); err != nil {
		return err
	}
	s.say("the kubelet has started again, as %s: there are two nodes now", server.Renamed())
	if err := waits(ctx, c, "the first node's end", func() (bool, error) {
		nodes, err := c.Nodes(ctx, server)
		for _, n := range nodes {
			if n.Name != server.Name() && !n.Ready {
				return true, nil
			}
		}
		return false, err
	}); err != nil {
		return err
	}
	s.say("the first one has no kubelet any more: a ghost")
	_, err = s.verdict(ctx, c, 1)
	return err
}

func (s *show) with(ctx context.Context, c *controlplane.Cluster) error {
	var servers []*controlplane.Server
	for _, name := range []string{first, "example-controlplane-3d3d26d1-b7xw2", "example-controlplane-3d3d26d1-q9zzt"} {
		server, err := c.Create(name)
		if err != nil {
			return err
		}
		server.Metadata(false)
		if err := server.Boot(ctx, "2m"); err != nil {
			return err
		}
		servers = append(servers, server)
	}
	s.say("three servers boot")
	for _, server := range servers {
		if err := waits(ctx, c, "a question", func() (bool, error) { return server.Asked() > 2, nil }); err != nil {
			return err
		}
	}
	s.say("each has asked the metadata service at least three times, and goes on; no service has started")
	for _, server := range servers {
		if name := server.Named(); name != "" {
			return fmt.Errorf("services of %s have started, as %s", server.Name(), name)
		}
		server.Metadata(true)
	}
	s.say("the metadata service answers")
	stop := s.controllers(ctx, c, servers[0])
	defer stop()
	if err := waits(ctx, c, "three members", func() (bool, error) {
		m, err := c.Members(ctx, servers[0])
		return err == nil && len(m) == 3 && m[0].Name != "" && m[1].Name != "" && m[2].Name != "", err
	}); err != nil {
		return err
	}
	s.say("etcd has three members")
	if err := waits(ctx, c, "three nodes that are ready", func() (bool, error) {
		nodes, err := c.Nodes(ctx, servers[0])
		ready := 0
		for _, n := range nodes {
			if n.Ready && !n.Uninitialized {
				ready++
			}
		}
		return ready == 3, err
	}); err != nil {
		return err
	}
	s.say("Kubernetes has three nodes, all ready")
	wrong, err := s.verdict(ctx, c, 0)
	if err == nil && wrong {
		err = errors.New("a name is not its server's")
	}
	return err
}

// verdict shows the names, as etcd and the API server have them, and has the auditor judge them.
func (s *show) verdict(ctx context.Context, c *controlplane.Cluster, want int) (wrong bool, err error) {
	server := c.Servers()[0]
	members, err := c.Members(ctx, server)
	if err != nil {
		return false, err
	}
	nodes, err := c.Nodes(ctx, server)
	if err != nil {
		return false, err
	}
	fmt.Fprintln(s.out)
	w := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "SERVER\tADDRESS\tETCD MEMBER\tNODE\t")
	for _, server := range c.Servers() {
		var member string
		var names []string
		for _, m := range members {
			if m.Address == server.Address {
				member = m.Name
			}
		}
		wrong = wrong || member != server.Name()
		for _, n := range nodes {
			if n.Address != server.Address {
				continue
			}
			wrong = wrong || n.Name != server.Name()
			state := "ready"
			if !n.Ready {
				state = "not ready"
			}
			if n.Uninitialized {
				state += ", no server of that name"
			}
			names = append(names, n.Name+": "+state)
		}
		for i, name := range names {
			if i == 0 {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", server.Name(), server.Address, member, name)
			} else {
				fmt.Fprintf(w, "\t\t\t%s\t\n", name)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return wrong, err
	}
	status, err := s.audit(ctx, c)
	if err == nil && status != want {
		err = fmt.Errorf("nametag-audit ended with status %d, want %d", status, want)
	}
	return wrong, err
}

func (s *show) audit(ctx context.Context, c *controlplane.Cluster) (int, error) {
	var endpoints []string
	for _, server := range c.Servers() {
		endpoints = append(endpoints, server.Client())
	}
	kubeconfig, err := c.Kubeconfig(c.Servers()[0])
	if err != nil {
		return 0, err
	}
	for name, value := range map[string]string{"HCLOUD_TOKEN": lab.Token, "HCLOUD_ENDPOINT": c.API.URL, "KUBECONFIG": kubeconfig, "TALOSCONFIG": kubeconfig + ".none"} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	args := []string{"--etcd-endpoints", strings.Join(endpoints, ","), "--grace", "1ns"}
	fmt.Fprintf(s.out, "\n$ nametag-audit %s\n", strings.Join(args[:2], " "))
	status := command.Run(ctx, "demo", args, os.Stdin, s.out, os.Stderr)
	fmt.Fprintf(s.out, "(exit status %d)\n", status)
	return status, nil
}
