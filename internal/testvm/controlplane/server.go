//go:build linux

package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// A Server is one of the fake cloud: a disk that stays, and namespaces while it runs.
type Server struct {
	ID      int64
	Address string // in the private network

	cluster  *Cluster
	name     atomic.Pointer[string]
	metadata atomic.Bool // the service answers
	asked    atomic.Int32
	config   machine.Config
	virtual  bool // it is a virtual machine

	power *power // of a virtual machine that runs

	// While it runs as namespaces.
	cloud *cloud.Cloud
	node  *netns.Node
	init  *exec.Cmd
	said  bytes.Buffer
	ended chan struct{}
}

// Name is what the server is called in the cloud.
func (s *Server) Name() string { return *s.name.Load() }

// Metadata lets the metadata service answer, or not.
func (s *Server) Metadata(answers bool) { s.metadata.Store(answers) }

// Asked is how often the metadata service was asked since the server was made, whatever it said.
func (s *Server) Asked() int { return int(s.asked.Load()) }

// Client is the URL of its etcd.
func (s *Server) Client() string { return "http://" + s.Address + ":2379" }

// Boot starts the server. Nametag is the policy; empty: it starts without nametag.
func (s *Server) Boot(ctx context.Context, nametag string) (err error) {
	if s.init != nil {
		return fmt.Errorf("%s runs", s.Name())
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("boot %s: %w", s.Name(), err), s.Off(ctx))
		}
	}()
	s.config.Nametag = nametag
	if nametag != "" {
		s.config.Nametag += ",nic=eth0" // it is a veth here, which nametag takes for a NIC only where it is named
	}
	if err := s.config.Write(s.config.Lab); err != nil {
		return err
	}
	if s.cloud, err = cloud.New(cloud.Config{
		Server:   cloud.Server{InstanceID: strconv.FormatInt(s.ID, 10)},
		Metadata: []cloud.Phase{{Until: 24 * time.Hour, Answer: cloud.Handler(s.serveMetadata)}},
	}); err != nil {
		return err
	}
	if s.node, err = netns.New(netns.Options{Hostname: "localhost"}); err != nil {
		return err
	}
	port, err := s.node.Plug("eth0")
	if err != nil {
		return err
	}
	if err := s.cloud.Attach(cloud.NIC{Name: "eth0"}, port); err != nil {
		return err
	}
	if err := s.wire(ctx); err != nil {
		return err
	}
	for _, file := range machine.Said() {
		if err := os.RemoveAll(s.stateFile(file)); err != nil {
			return err
		}
	}
	s.said.Reset()
	s.init = exec.Command(filepath.Join(s.config.Lab, "guest"), "namespaces", s.config.Lab) //nolint:noctx // Off ends it
	s.init.Stdout, s.init.Stderr = &s.said, &s.said
	// As the first process of a namespace of its own it takes all others with it.
	s.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := s.node.Start(s.init); err != nil {
		s.init = nil
		return err
	}
	s.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // what it said is kept
		close(ended)
	}(s.init, s.ended)
	return nil
}

// serveMetadata answers as the service does for the name that the server has at this moment.
func (s *Server) serveMetadata(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if !s.metadata.Load() {
		http.Error(w, "not yet", http.StatusServiceUnavailable)
		return
	}
	cloud.Server{Hostname: s.Name(), InstanceID: strconv.FormatInt(s.ID, 10), Region: "eu-central", AvailabilityZone: "hel1-dc2"}.ServeHTTP(w, r)
}

// wire plugs the server into the private network: a wire to its gateway, which is this process' network.
func (s *Server) wire(ctx context.Context) error {
	var thread string
	if err := s.node.Do(func() error {
		thread = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		return nil
	}); err != nil {
		return err
	}
	ours := s.ours()
	return errors.Join(
		ip(ctx, "link", "add", ours, "type", "veth", "peer", "name", "eth1", "netns", thread),
		ip(ctx, "link", "set", ours, "up"),
		ip(ctx, "route", "add", s.Address+"/32", "dev", ours, "src", Gateway),
	)
}

// ours is the near end of the server's wire.
func (s *Server) ours() string { return strings.Replace(s.Address, "10.1.", "net", 1) }

func ip(ctx context.Context, args ...string) error {
	return command(ctx, append([]string{"ip"}, args...)...)
}

// Off switches the server off, at once. Its disk stays.
func (s *Server) Off(ctx context.Context) error {
	var errs []error
	if s.power != nil {
		s.power.off()
		s.power = nil
	}
	if s.init != nil {
		_ = s.init.Process.Kill()
		<-s.ended
		s.init = nil
		sweep := exec.CommandContext(ctx, filepath.Join(s.config.Lab, "guest"), "sweep", s.config.Group)
		sweep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if out, err := sweep.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("the control groups of %s: %w: %s", s.Name(), err, out))
		}
	}
	if s.node != nil {
		errs = append(errs, s.node.Close())
		s.node = nil
	}
	if s.cloud != nil {
		errs = append(errs, s.cloud.Close())
	}
	_ = ip(ctx, "link", "delete", s.ours()) // it went with the namespace, as a rule
	return errors.Join(errs...)
}

func (s *Server) stateFile(name string) string {
	return filepath.Join(s.config.Disk, "upper", machine.State, name)
}

// state reads one of the files in which the server says how it is doing; "" where it has not said it.
func (s *Server) state(file string) string {
	if s.virtual {
		return s.shown("state/" + file)
	}
	b, err := os.ReadFile(s.stateFile(file))
	if err != nil {
		return ""
	}
	return string(b)
}

// Log is all that its services have said, for people.
func (s *Server) Log() string {
	var b strings.Builder
	fmt.Fprintf(&b, "== %s: %s\n", s.Name(), s.Said())
	for _, file := range machine.Said() {
		if text := s.state(file); text != "" {
			fmt.Fprintf(&b, "%s: %s\n", file, text)
		}
	}
	for _, service := range []string{"nametag", "containerd", "etcd", "kube-apiserver", "kubelet"} {
		text, err := os.ReadFile(filepath.Join(s.config.Disk, "upper/var/log", service))
		if s.virtual {
			text, err = []byte(s.shown("log/"+service)), nil
		}
		if err == nil {
			fmt.Fprintf(&b, "== %s of %s, its end\n%s\n", service, s.Name(), text[max(0, len(text)-4000):])
		}
	}
	return b.String()
}

// Ended reports whether the server has gone down by itself.
func (s *Server) Ended() bool {
	if s.power != nil {
		select {
		case <-s.power.ended:
			return true
		default:
			return false
		}
	}
	if s.ended == nil {
		return false
	}
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Said is what its first process said, once it has ended.
func (s *Server) Said() string {
	if !s.Ended() {
		return ""
	}
	if s.power != nil {
		s.power.mu.Lock()
		defer s.power.mu.Unlock()
		return s.power.err.Error()
	}
	return strings.TrimSpace(s.said.String())
}
