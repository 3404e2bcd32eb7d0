//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
)

// A service is a program that is started again whenever it ends.
type service struct {
	name    string
	command func() *exec.Cmd

	mu      sync.Mutex
	running *exec.Cmd
}

func start(name string, command func() *exec.Cmd) *service {
	s := &service{name: name, command: command}
	go s.keep()
	return s
}

func (s *service) keep() {
	for {
		if err := s.once(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", s.name, err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (s *service) once() error {
	log, err := os.OpenFile("/var/log/"+s.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // the lab reads it
	if err != nil {
		return err
	}
	defer log.Close()
	s.mu.Lock()
	cmd := s.command()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	if err == nil {
		s.running = cmd
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// restart ends the service; it starts again.
func (s *service) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		_ = s.running.Process.Kill()
	}
}

// patience is how long a service may take to be there. On an emulated processor that others want as well it is minutes.
const patience = 30 * time.Minute

const kubeletRoot = "/var/lib/kubelet"

func kube(program string) string { return filepath.Join(machine.Kube, program) }
func lab(file string) string     { return filepath.Join(machine.Dir, file) }

// services starts all of them. Where a program is told the machine's name, it is the kernel's at that moment, as Talos does it.
func (m *node) services(ctx context.Context) error {
	if err := m.containerd(ctx); err != nil {
		return err
	}
	if err := m.etcd(ctx); err != nil {
		return err
	}
	start("kube-apiserver", func() *exec.Cmd {
		return exec.CommandContext(ctx, kube("kube-apiserver"), //nolint:gosec // the lab's own
			"--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=0.0.0.0", "--advertise-address="+m.Address,
			"--tls-cert-file="+lab("apiserver.crt"), "--tls-private-key-file="+lab("apiserver.key"), "--client-ca-file="+lab("ca.crt"),
			"--token-auth-file="+lab("tokens.csv"), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
			"--service-account-key-file="+lab("sa.key"), "--service-account-signing-key-file="+lab("sa.key"), "--service-account-issuer=https://lab.nametag.test",
			"--audit-policy-file="+lab("audit.yaml"), "--audit-log-path="+machine.State+"/audit.log", "--audit-log-mode=blocking",
			// What takes these taints and accounts away is the controller manager, which does not run here.
			"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition")
	})
	m.kubelet = start("kubelet", func() *exec.Cmd {
		forgetAnother()
		return exec.CommandContext(ctx, kube("kubelet"), //nolint:gosec // the lab's own
			"--config="+lab("kubelet.yaml"), "--bootstrap-kubeconfig="+lab("bootstrap.kubeconfig"), "--kubeconfig="+kubeletRoot+"/kubeconfig",
			"--cert-dir="+kubeletRoot+"/pki", "--root-dir="+kubeletRoot, "--node-ip="+m.Address, "--cloud-provider=external",
			"--node-labels=lab.nametag.test/control-plane=")
	})
	return nil
}

// forgetAnother takes away the certificates of a kubelet that had another name: Talos does the same. With them it would speak as that
// node, and be refused.
func forgetAnother() {
	const whose = kubeletRoot + "/lab-name"
	name, err := os.Hostname()
	if err != nil {
		return
	}
	if before, err := os.ReadFile(whose); err != nil || string(before) != name {
		for _, gone := range []string{"/pki", "/kubeconfig"} {
			_ = os.RemoveAll(kubeletRoot + gone)
		}
		_ = os.WriteFile(whose, []byte(name), 0o600)
	}
}

// containerd starts it with an image of a pod that holds nothing, and waits until it has that.
func (m *node) containerd(ctx context.Context) error {
	for file, text := range map[string]string{"/etc/hosts": "127.0.0.1 localhost\n", "/etc/resolv.conf": ""} { // every pod gets its own of them
		if _, err := os.Stat(file); err == nil {
			continue
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // as on any system
			return err
		}
	}
	start("containerd", func() *exec.Cmd {
		return exec.CommandContext(ctx, "containerd", "--config", lab("containerd.toml"))
	})
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var out []byte
		if out, err = exec.CommandContext(ctx, "ctr", "--namespace", "k8s.io", "images", "import", lab(machine.PauseFile)).CombinedOutput(); err == nil {
			return nil
		}
		err = fmt.Errorf("ctr images import: %w: %s", err, out)
	}
	return err
}

// etcd starts the machine's member, under its hostname: of a cluster of its own, or of the one whose members it was told. That is
// Talos' way: the member is added as a learner, starts, and is promoted once it has caught up.
func (m *node) etcd(ctx context.Context) error {
	const data = "/var/lib/etcd/data"
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	peer := "http://" + net.JoinHostPort(m.Address, "2380")
	initial, state, learner := name+"="+peer, "new", uint64(0)
	_, err = os.Stat(data)
	if known := err == nil; !known && len(m.Members) > 0 {
		state = "existing"
		if initial, learner, err = m.join(ctx, name, peer); err != nil {
			return err
		}
	}
	start("etcd", func() *exec.Cmd {
		return exec.CommandContext(ctx, kube("etcd"), "--name="+name, "--data-dir="+data, //nolint:gosec // the lab's own
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster="+initial, "--initial-cluster-state="+state,
			"--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://"+net.JoinHostPort(m.Address, "2379"),
			"--unsafe-no-fsync", "--heartbeat-interval=500", "--election-timeout=5000", "--logger=zap", "--log-level=warn")
	})
	if learner != 0 {
		if err := m.promote(ctx, learner); err != nil {
			return err
		}
	}
	return healthy(ctx, "http://127.0.0.1:2379/health")
}

func (m *node) ask(ctx context.Context) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: m.Members, Context: ctx, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

// eventually does something until it works.
func eventually(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		attempt, end := context.WithTimeout(ctx, 10*time.Second)
		err := f(attempt)
		end()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (m *node) join(ctx context.Context, name, peer string) (initial string, id uint64, err error) {
	c, err := m.ask(ctx)
	if err != nil {
		return "", 0, err
	}
	defer c.Close() //nolint:errcheck // what was asked for is here
	err = eventually(ctx, "join etcd", func(ctx context.Context) error {
		added, err := c.MemberAddAsLearner(ctx, []string{peer})
		if err != nil {
			return err // another one is a learner at this moment
		}
		id = added.Member.ID
		parts := []string{name + "=" + peer}
		for _, other := range added.Members {
			if other.Name != "" {
				parts = append(parts, other.Name+"="+other.PeerURLs[0])
			}
		}
		initial = strings.Join(parts, ",")
		return nil
	})
	return initial, id, err
}

func (m *node) promote(ctx context.Context, id uint64) error {
	c, err := m.ask(ctx)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // what was asked for is here
	return eventually(ctx, "become a voting member of etcd", func(ctx context.Context) error {
		_, err := c.MemberPromote(ctx, id)
		return err
	})
}

func healthy(ctx context.Context, url string) error {
	return eventually(ctx, url, func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
}
