//go:build linux

package controlplane_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/command"
	"github.com/nametag-boot/nametag/cluster/lab"
	"github.com/nametag-boot/nametag/internal/testvm/controlplane"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/patience"
)

// wanted has these tests run, as `make test-kube` sets it: they take minutes, and what they run takes long to build once.
const wanted = "NAMETAG_TEST_KUBE"

// The servers of the tests.
const (
	one   = "example-controlplane-3d3d26d1-69c5k"
	two   = "example-controlplane-3d3d26d1-b7xw2"
	three = "example-controlplane-3d3d26d1-q9zzt"
	four  = "example-controlplane-3d3d26d1-zz4fp"
)

// What the process outside of the namespaces tells the one in them: why there are no programs, and what hack/os-deps printed.
const (
	debianRoot      = "NAMETAG_TEST_DEBIAN"
	missingPrograms = "NAMETAG_TEST_PROGRAMS_MISSING"
)

func TestMain(m *testing.M) {
	if os.Getenv(wanted) == "" {
		os.Exit(m.Run()) // every test is skipped
	}
	if controlplane.Handed() == nil && os.Getenv(missingPrograms) == "" { // before the namespaces: it may need the internet
		p, err := controlplane.FindPrograms(context.Background(), os.Stderr)
		if err == nil {
			err = p.Hand()
		}
		if err != nil {
			os.Setenv(missingPrograms, err.Error())
		}
		deps := exec.Command("../../../hack/os-deps")
		deps.Stderr = os.Stderr
		if debian, err := deps.Output(); err == nil { // where not, it has said why
			os.Setenv(debianRoot, strings.TrimSpace(string(debian)))
		}
	}
	netns.Main(m)
}

// A scene is a cluster in a test.
type scene struct {
	*controlplane.Cluster
	t *testing.T

	mu        sync.Mutex
	complaint error // the controllers' last one
}

// required skips a test that is not asked for, and one that cannot run, which fails where all must run.
func required(t *testing.T) {
	t.Helper()
	if os.Getenv(wanted) == "" {
		t.Skip("a real control plane takes minutes: make test-kube runs it")
	}
	netns.Require(t)
	if why := os.Getenv(missingPrograms); why != "" {
		netns.Missing(t, why)
	}
}

func aCluster(t *testing.T) *scene {
	t.Helper()
	required(t)
	c, err := controlplane.New(t.Context(), controlplane.Handed())
	if err != nil {
		netns.Missing(t, err.Error())
	}
	s := &scene{Cluster: c, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			for _, server := range c.Servers() {
				t.Log(server.Log())
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Log("the controllers said last:", s.complaint)
		}
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// controllers run through a server until the returned function is called.
func (s *scene) controllers(through *controlplane.Server) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	complain := func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.complaint = err
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Controllers(ctx, through, complain); err != nil {
			complain(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	s.t.Cleanup(stop)
	return stop
}

func (s *scene) create(name string) *controlplane.Server {
	s.t.Helper()
	server, err := s.Create(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return server
}

func (s *scene) boot(server *controlplane.Server, policy string) {
	s.t.Helper()
	if err := server.Boot(s.t.Context(), policy); err != nil {
		s.t.Fatal(err)
	}
}

// becomes waits until something is so. What it waits for takes seconds on a machine that is idle.
func (s *scene) becomes(what string, so func() (bool, error)) {
	s.t.Helper()
	deadline := time.Now().Add(max(8*time.Minute, patience.Bound(20*time.Second)))
	for {
		ok, err := so()
		if ok && err == nil {
			return
		}
		for _, server := range s.Servers() {
			if why := server.Failed(); why != "" && server.NoName() == "" {
				s.t.Fatalf("%s cannot go on: %s", server.Name(), why)
			}
			if server.Ended() {
				s.t.Fatalf("%s has ended: %s", server.Name(), server.Said())
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("it does not become so: %s (%v)", what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// members waits until etcd has these members, by name, and no other.
func (s *scene) members(through *controlplane.Server, want ...string) {
	s.t.Helper()
	slices.Sort(want)
	s.becomes(fmt.Sprintf("etcd has the members %v", want), func() (bool, error) {
		list, err := s.Members(s.t.Context(), through)
		if err != nil {
			return false, err
		}
		var names []string
		for _, m := range list {
			names = append(names, m.Name)
		}
		slices.Sort(names)
		if !slices.Equal(names, want) {
			return false, fmt.Errorf("it has %q", names)
		}
		return true, nil
	})
}

// ready waits until Kubernetes has these nodes that are ready and have found their servers, and no other that is either.
func (s *scene) ready(through *controlplane.Server, want ...string) []controlplane.Node {
	s.t.Helper()
	slices.Sort(want)
	var nodes []controlplane.Node
	s.becomes(fmt.Sprintf("the nodes %v are ready", want), func() (bool, error) {
		list, err := s.Nodes(s.t.Context(), through)
		var names []string
		nodes = nil
		for _, n := range list {
			if n.Ready && !n.Uninitialized {
				names = append(names, n.Name)
				nodes = append(nodes, n)
			}
		}
		if err == nil && !slices.Equal(names, want) {
			err = fmt.Errorf("it has %+v", list)
		}
		return err == nil, err
	})
	return nodes
}

// onlyNames checks that a server's API server has never heard of a node under another name than those, and that no kubelet was
// given a certificate for another.
func (s *scene) onlyNames(through *controlplane.Server, want ...string) {
	s.t.Helper()
	slices.Sort(want)
	nodes, err := s.Nodes(s.t.Context(), through)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
		if n.HostnameLabel != n.Name || n.HostnameAddress != n.Name {
			s.t.Errorf("the node %s has the label kubernetes.io/hostname=%s and the address %s", n.Name, n.HostnameLabel, n.HostnameAddress)
		}
	}
	if !slices.Equal(names, want) {
		s.t.Errorf("the nodes are %q, want %q", names, want)
	}
	clients, servers, err := s.Certificates(s.t.Context(), through)
	if err != nil {
		s.t.Fatal(err)
	}
	if !slices.Equal(clients, want) || !slices.Equal(servers, want) {
		s.t.Errorf("kubelets have certificates for %q as clients and for %q as servers, want %q", clients, servers, want)
	}
	for _, server := range s.Servers() {
		users, err := server.NodeUsers()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, user := range users {
			if !slices.Contains(want, user) {
				s.t.Errorf("the audit log of %s has the node %q", server.Name(), user)
			}
		}
		if !slices.Contains(users, server.Name()) {
			s.t.Errorf("the audit log of %s has not its own node, but %q", server.Name(), users)
		}
	}
}

// serves waits until a server's kubelet has its certificate, and checks that it is for that name alone.
func (s *scene) serves(server *controlplane.Server, name string) {
	s.t.Helper()
	var certificate *x509.Certificate
	s.becomes("the kubelet of "+name+" has its certificate", func() (ok bool, err error) {
		certificate, err = server.Serves()
		return err == nil, err
	})
	if certificate.Subject.CommonName != "system:node:"+name || !slices.Equal(certificate.DNSNames, []string{name}) {
		s.t.Errorf("the kubelet of %s shows a certificate of %s for %q", name, certificate.Subject.CommonName, certificate.DNSNames)
	}
}

// audits runs the auditor over the cluster and gives what it finds, by kind.
func (s *scene) audits() []string {
	s.t.Helper()
	var endpoints []string
	for _, server := range s.Servers() {
		endpoints = append(endpoints, server.Client())
	}
	kubeconfig, err := s.Kubeconfig(s.Servers()[0])
	if err != nil {
		s.t.Fatal(err)
	}
	for name, value := range map[string]string{"HCLOUD_TOKEN": lab.Token, "HCLOUD_ENDPOINT": s.API.URL, "KUBECONFIG": kubeconfig, "TALOSCONFIG": filepath.Join(s.t.TempDir(), "none")} {
		s.t.Setenv(name, value)
	}
	var out, complaint bytes.Buffer
	status := command.Run(s.t.Context(), "test", []string{"--etcd-endpoints", strings.Join(endpoints, ","), "--grace", "1ns", "--timeout", "2m", "-o", "json"}, strings.NewReader(""), &out, &complaint)
	var r audit.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || status > 1 {
		s.t.Fatalf("nametag-audit ended with %d: %v: %s%s", status, err, &out, &complaint)
	}
	var ids []string
	for _, f := range r.Findings {
		if f.Severity != audit.Info {
			ids = append(ids, string(f.ID))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// What happens without nametag is what was reported: it shows that the tests below can fail.
func TestWithoutNametagTheNameIsInvented(t *testing.T) {
	s := aCluster(t)
	server := s.create(one)
	server.Metadata(false)
	s.boot(server, "")
	s.controllers(server)
	s.becomes("the services have started", func() (bool, error) { return server.Named() != "", nil })
	invented := server.Named()
	if !strings.HasPrefix(invented, "talos-") {
		t.Fatalf("the services start as %q", invented)
	}
	s.members(server, invented)
	s.becomes("a node is ready under that name", func() (bool, error) {
		nodes, err := s.Nodes(t.Context(), server)
		return err == nil && len(nodes) == 1 && nodes[0].Name == invented && nodes[0].Ready, err
	})
	server.Metadata(true)
	s.ready(server, one)
	s.becomes("the node of that name is a ghost that no server was found for", func() (bool, error) {
		nodes, err := s.Nodes(t.Context(), server)
		return len(nodes) == 2 && nodes[1].Name == invented && nodes[1].Uninitialized && !nodes[1].Ready, err
	})
	s.members(server, invented) // for ever
	if users, err := server.NodeUsers(); err != nil || !slices.Equal(users, []string{one, invented}) {
		t.Errorf("the audit log has the nodes %q, %v", users, err)
	}
	s.becomes("the auditor finds it", func() (bool, error) {
		found := s.audits()
		want := []string{"member-name-invented", "node-name-invented", "server-two-nodes"}
		if !slices.Equal(found, want) {
			return false, fmt.Errorf("it finds %q", found)
		}
		return true, nil
	})
}

// The promise, and the life of a control plane: three servers, one of them replaced, one that boots again, one that is renamed.
func TestTheServersNamesAreTheOnlyOnes(t *testing.T) {
	s := aCluster(t)
	servers := map[string]*controlplane.Server{}
	for _, name := range []string{one, two, three} {
		servers[name] = s.create(name)
		servers[name].Metadata(false)
		s.boot(servers[name], "10m")
	}
	for name, server := range servers {
		s.becomes(name+" asks and waits", func() (bool, error) { return server.Asked() > 2, s.nothingRuns(server) })
		server.Metadata(true)
	}
	stop := s.controllers(servers[one])
	s.members(servers[one], one, two, three)
	s.ready(servers[one], one, two, three)
	for name, server := range servers {
		s.serves(server, name)
	}
	s.onlyNames(servers[one], one, two, three)
	if found := s.audits(); len(found) > 0 {
		t.Errorf("the auditor finds %q", found)
	}
	if t.Failed() {
		return
	}

	t.Run("one is replaced", func(t *testing.T) {
		s := s.in(t)
		if err := errors.Join(servers[three].Off(t.Context()), s.RemoveMember(t.Context(), servers[one], servers[three]), s.Delete(t.Context(), servers[three])); err != nil {
			t.Fatal(err)
		}
		servers[four] = s.create(four)
		s.boot(servers[four], "10m")
		s.members(servers[one], one, two, four)
		s.ready(servers[one], one, two, four)
		s.becomes("the node of the server that is gone is gone", func() (bool, error) {
			nodes, err := s.Nodes(t.Context(), servers[one])
			return len(nodes) == 3, err
		})
		if found := s.audits(); len(found) > 0 {
			t.Errorf("the auditor finds %q", found)
		}
	})
	if t.Failed() {
		return
	}

	t.Run("one boots again while the service is silent", func(t *testing.T) {
		s := s.in(t)
		if err := servers[two].Off(t.Context()); err != nil {
			t.Fatal(err)
		}
		servers[two].Metadata(false)
		s.boot(servers[two], "10m,known=1s")
		s.becomes("it has a name", func() (bool, error) { return servers[two].Named() == two, nil })
		s.members(servers[two], one, two, four) // its own etcd says so
		s.ready(servers[two], one, two, four)
		servers[two].Metadata(true)
		if found := s.audits(); len(found) > 0 {
			t.Errorf("the auditor finds %q", found)
		}
	})
	if t.Failed() {
		return
	}

	const another = "example-controlplane-renamed"
	t.Run("one is renamed, and boots with rename=stop", func(t *testing.T) {
		s := s.in(t)
		if err := servers[two].Off(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Rename(servers[two], another)
		s.boot(servers[two], "5s,rename=stop")
		s.becomes("it starts nothing", func() (bool, error) { return servers[two].NoName() != "", s.nothingRuns(servers[two]) })
		s.members(servers[one], one, two, four)
		nodes, err := s.Nodes(t.Context(), servers[one])
		if err != nil || slices.ContainsFunc(nodes, func(n controlplane.Node) bool { return n.Name == another }) {
			t.Errorf("there is a node of the new name: %+v, %v", nodes, err)
		}
	})
	if t.Failed() {
		return
	}

	t.Run("and with rename=follow", func(t *testing.T) {
		s := s.in(t)
		if err := servers[two].Off(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.boot(servers[two], "10m,rename=follow")
		s.members(servers[one], one, another, four) // the member is the same, under the new name
		s.becomes("its node has the new name", func() (bool, error) {
			nodes, err := s.Nodes(t.Context(), servers[one])
			return slices.ContainsFunc(nodes, func(n controlplane.Node) bool { return n.Name == another && n.Ready && !n.Uninitialized }), err
		})
		if found := s.audits(); !slices.Contains(found, "server-two-nodes") {
			t.Errorf("the auditor does not find the node that is left behind, but %q", found)
		}
	})
	stop()
}

// nothingRuns ends the test where a server has started its services.
func (s *scene) nothingRuns(server *controlplane.Server) error {
	s.t.Helper()
	if named := server.Named(); named != "" {
		s.t.Fatalf("%s has started its services, as %s", server.Name(), named)
	}
	return nil
}

// in is the scene in a test within its own.
func (s *scene) in(t *testing.T) *scene { return &scene{Cluster: s.Cluster, t: t} }
