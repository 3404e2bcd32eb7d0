package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/siderolabs/talos/pkg/machinery/api/machine"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/capi"
	"github.com/nametag-boot/nametag/cluster/lab"
)

// A user is somebody at a command line, with nothing of this machine's own in the environment.
type user struct {
	t   *testing.T
	dir string
	in  string
}

func aUser(t *testing.T) *user {
	dir := t.TempDir()
	for name, value := range map[string]string{
		"HOME": dir, "KUBECONFIG": filepath.Join(dir, "none"), "TALOSCONFIG": filepath.Join(dir, "none"), "HCLOUD_TOKEN": "", "HCLOUD_ENDPOINT": "", "XDG_CONFIG_HOME": dir,
	} {
		t.Setenv(name, value)
	}
	return &user{t: t, dir: dir}
}

func (u *user) runs(args ...string) (status int, stdout, stderr string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), 2*time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	status = Run(ctx, "test", args, strings.NewReader(u.in), &out, &err)
	return status, out.String(), err.String()
}

// audits runs an audit and gives its report.
func (u *user) audits(want int, args ...string) *audit.Report {
	u.t.Helper()
	status, out, stderr := u.runs(append(args, "-o", "json")...)
	if status != want {
		u.t.Fatalf("exit status %d, want %d: %s%s", status, want, out, stderr)
	}
	conforms(u.t, "audit", out)
	var r audit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Schema != audit.Schema {
		u.t.Fatalf("%v: %s", err, out)
	}
	return &r
}

func ids(r *audit.Report) []string {
	var all []string
	for _, f := range r.Findings {
		if f.Severity != audit.Info {
			all = append(all, string(f.ID))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func expect(t *testing.T, r *audit.Report, want ...string) {
	t.Helper()
	if got := ids(r); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
		for _, f := range r.Findings {
			t.Logf("%s %s: %s", f.Severity, f.Key(), f.Message)
		}
		for _, s := range r.Sources {
			t.Logf("%+v", s)
		}
	}
}

// theSeed is the broken cluster, and what a user needs to look at it.
func (u *user) theSeed(first int, genuine bool) (*lab.Seed, []string) {
	u.t.Helper()
	s, err := lab.NewSeed(u.t.Context(), first, genuine)
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			u.t.Error(err)
		}
	})
	kubeconfig, err := s.Kube.Kubeconfig(u.dir)
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Setenv("HCLOUD_TOKEN", lab.Token)
	u.t.Setenv("HCLOUD_ENDPOINT", s.Cloud.URL)
	u.t.Setenv("KUBECONFIG", kubeconfig)
	return s, []string{"--etcd-endpoints", strings.Join(s.Etcd.Endpoints(), ",")}
}

func TestTheSeedsClusterIsSeenAndMended(t *testing.T) {
	for name, genuine := range map[string]bool{"on a stand-in for the API server": false, "on the real API server": true} {
		t.Run(name, func(t *testing.T) {
			if _, there := lab.APIServer(); genuine && !there {
				missing(t, "no kube-apiserver: hack/kube-deps builds it")
			}
			u := aUser(t)
			s, args := u.theSeed(41, genuine)
			if err := s.Ghost(t.Context()); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--grace", "1ns")
			r := u.audits(exitFindings, args...)
			expect(t, r, "capi-removes-members", "member-name-invented", "node-name-invented", "server-two-nodes")
			for _, source := range r.Sources[:4] {
				if source.State != audit.SourceRead || source.Objects < 3 {
					t.Errorf("%+v", source)
				}
			}
			if !strings.Contains(r.Findings[0].Message, "WILL REMOVE AS SOON AS IT IS UNPAUSED") {
				t.Errorf("it is paused: %s", r.Findings[0].Message)
			}
			before := s.Etcd.Members[0].ID()
			if err := s.Etcd.Members[0].Restart(t.Context(), lab.Right); err != nil {
				t.Fatal(err)
			}
			if after := s.Etcd.Members[0].ID(); after != before {
				t.Errorf("the member was %x and is %x", before, after)
			}
			if err := s.Kube.Delete(t.Context(), lab.Nodes, "", lab.Invented); err != nil {
				t.Fatal(err)
			}
			r = u.audits(exitAgree, args...)
			expect(t, r)
			if len(r.Machines) != 4 {
				t.Errorf("%d machines agree, want 4", len(r.Machines))
			}
			u.remembers(s, args)
		})
	}
}

// missing skips a test that cannot run; where all must run, it fails.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// remembers renames a server, with a memory in a file and one in a ConfigMap.
func (u *user) remembers(s *lab.Seed, args []string) {
	t := u.t
	t.Helper()
	for _, state := range [][]string{{"--state", filepath.Join(u.dir, "state.json")}, {"--state-configmap", "default/nametag-audit"}} {
		all := slices.Concat(args, state)
		expect(t, u.audits(exitAgree, all...))
		s.Cloud.Rename(4711002, "renamed")
		expect(t, u.audits(exitFindings, all...), "server-renamed")
		status, out, stderr := u.runs(append([]string{"accept", "4711002"}, state...)...)
		if status != exitAgree || !strings.Contains(out, "renamed from now on") {
			t.Errorf("accept: %d %s%s", status, out, stderr)
		}
		r := u.audits(exitFindings, all...)
		if slices.Contains(ids(r), "server-renamed") || !slices.Contains(ids(r), "member-name-differs") {
			t.Errorf("after accept: %v", ids(r))
		}
		s.Cloud.Rename(4711002, s.Names()[1])
		if status, _, stderr := u.runs(append([]string{"accept", "4711002"}, state...)...); status != exitAgree {
			t.Error(stderr)
		}
	}
	damaged := filepath.Join(u.dir, "damaged.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := u.runs(slices.Concat(args, []string{"--state", damaged})...); status != exitSource || !strings.Contains(stderr, "damaged") {
		t.Errorf("%d: %s", status, stderr)
	}
}

func TestASourceThatFailsTakesNothingFromTheOthers(t *testing.T) {
	u := aUser(t)
	s, args := u.theSeed(42, false)
	args = append(args, "--grace", "1ns", "--timeout", "3s")
	state := func(r *audit.Report, source audit.Source) audit.SourceReport {
		for _, report := range r.Sources {
			if report.Source == source {
				return report
			}
		}
		return audit.SourceReport{}
	}
	t.Run("a token without rights", func(t *testing.T) {
		t.Setenv("HCLOUD_TOKEN", "another")
		r := u.audits(exitSource, args...)
		if got := state(r, audit.Cloud); got.State != audit.SourceFailed || !strings.Contains(got.Error, "token is not valid") {
			t.Errorf("%+v", got)
		}
		expect(t, r, "capi-removes-members", "member-name-invented") // against the node's name
	})
	t.Run("a cloud that does not answer in time", func(t *testing.T) {
		s.Cloud.Delay(time.Hour)
		defer s.Cloud.Delay(0)
		r := u.audits(exitSource, args...)
		if got := state(r, audit.Cloud); got.State != audit.SourceFailed || !strings.Contains(got.Error, "no whole answer in 3s") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a cloud that is over its limit for a while", func(t *testing.T) {
		s.Cloud.Limit(2)
		r := u.audits(exitFindings, append(slices.Clone(args), "--timeout", "1m")...)
		if got := state(r, audit.Cloud); got.State != audit.SourceRead || got.Objects != 4 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("etcd with one member down", func(t *testing.T) {
		s.Etcd.Members[2].Stop()
		expect(t, u.audits(exitFindings, args...), "capi-removes-members", "member-name-invented", "quorum-at-risk")
	})
	t.Run("etcd without a quorum", func(t *testing.T) {
		s.Etcd.Members[1].Stop()
		r := u.audits(exitFindings, append(slices.Clone(args), "--timeout", "1m")...)
		i := slices.IndexFunc(r.Findings, func(f audit.Finding) bool { return f.ID == audit.QuorumAtRisk })
		if i < 0 || r.Findings[i].Severity != audit.Critical || r.Quorum.Up != 1 {
			t.Errorf("%+v, %+v", r.Findings, r.Quorum)
		}
		for _, f := range r.Findings {
			for _, step := range f.Remedy {
				if step.Act != nil {
					t.Errorf("%s does something to etcd: %s", f.ID, step.Text)
				}
			}
		}
	})
	t.Run("etcd that is gone", func(t *testing.T) {
		s.Etcd.Members[0].Stop()
		if got := state(u.audits(exitSource, args...), audit.Etcd); got.State != audit.SourceFailed {
			t.Errorf("%+v", got)
		}
	})
}

func TestAListThatChangesWhileItIsReadIsReadAgain(t *testing.T) {
	u := aUser(t)
	cloud, done := lab.NewCloud()
	defer done()
	for i := range 120 {
		cloud.Add(lab.Server{ID: int64(1 + i), Name: fmt.Sprintf("s-%d", i), Private: map[int64]string{1: fmt.Sprintf("10.1.0.%d", i)}})
	}
	t.Setenv("HCLOUD_TOKEN", lab.Token)
	t.Setenv("HCLOUD_ENDPOINT", cloud.URL)
	deleted := false
	cloud.Between(func(page int) {
		if page == 2 && !deleted {
			deleted = true
			cloud.Delete(1)
		}
	})
	r := u.audits(exitAgree, "--sources", "cloud")
	if got := r.Sources[0].Objects; got != 119 {
		t.Errorf("%d servers, want 119", got)
	}
	if got := cloud.Requests(); got != 3+3 {
		t.Errorf("%d pages were asked for, want all three and then all three again", got)
	}
	cloud.Between(func(page int) {
		if page == 2 {
			cloud.Add(lab.Server{ID: int64(1000 + cloud.Requests()), Name: fmt.Sprintf("n-%d", cloud.Requests())})
		}
	})
	if r := u.audits(exitSource, "--sources", "cloud"); !strings.Contains(r.Sources[0].Error, "changed while it was read") {
		t.Errorf("%+v", r.Sources[0])
	}
}

func TestOnlyTheNamedNetworksAddressesCount(t *testing.T) {
	u := aUser(t)
	s, args := u.theSeed(43, false)
	s.Cloud.AddNetwork(1, "cluster")
	s.Cloud.AddNetwork(2, "other")
	s.Cloud.Add(lab.Server{ID: 9, Name: "other", Private: map[int64]string{2: s.Etcd.Members[0].Address}})
	args = append(args, "--sources", "cloud,etcd")
	expect(t, u.audits(exitAgree, args...)) // whose the member is is not known
	expect(t, u.audits(exitFindings, append(args, "--network", "cluster")...), "member-name-invented")
	r := u.audits(exitSource, append(args, "--network", "nobody")...)
	if !strings.Contains(r.Sources[0].Error, "no network nobody") {
		t.Errorf("%+v", r.Sources[0])
	}
}

func TestKubernetesListsComeInPagesAndFail(t *testing.T) {
	u := aUser(t)
	kube := lab.NewStandIn(false)
	defer kube.Close()
	for i := range 1200 {
		n := lab.Node{Name: fmt.Sprintf("node-%d", i), Address: fmt.Sprintf("10.%d.%d.1", i/200, i%200), Age: time.Hour}
		if err := kube.Put(t.Context(), lab.Nodes, n.Object()); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig, err := kube.Kubeconfig(u.dir)
	if err != nil {
		t.Fatal(err)
	}
	r := u.audits(exitAgree, "--kubeconfig", kubeconfig, "--sources", "kubernetes")
	if got := r.Sources[2]; got.Objects != 1200 {
		t.Errorf("%+v", got)
	}
	expired := 0
	kube.Fault(func(r *http.Request) int {
		if r.URL.Query().Get("continue") == "500" && expired == 0 {
			expired++
			return http.StatusGone
		}
		return 0
	})
	if r := u.audits(exitAgree, "--kubeconfig", kubeconfig, "--sources", "kubernetes"); r.Sources[2].Objects != 1200 || expired != 1 {
		t.Errorf("%+v", r.Sources[2])
	}
	kube.Fault(func(*http.Request) int { return http.StatusForbidden })
	if r := u.audits(exitSource, "--kubeconfig", kubeconfig, "--sources", "kubernetes"); r.Sources[2].State != audit.SourceFailed {
		t.Errorf("%+v", r.Sources[2])
	}
	if r := u.audits(exitSource, "--kubeconfig", kubeconfig, "--sources", "clusterapi"); r.Sources[3].State != audit.SourceFailed {
		t.Errorf("%+v", r.Sources[3])
	}
}

func TestWhatIsNotUnderstood(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"frobnicate"},
		{"--frobnicate"},
		{"-o", "xml"},
		{"--fail-on", "never"},
		{"--sources", "moon"},
		{"--sources", "cloud"},
		{"--sources", "kubernetes"},
		{"--sources", "etcd"},
		{"--kubeconfig", "/nowhere"},
		{"--talosconfig", "/nowhere"},
		{"pin", "show", "--talosconfig", "/nowhere"},
		{"accept"},
		{"accept", "5"},
		{"schema", "moon"},
		{"pin"},
		{"pin", "frobnicate"},
		{"pin", "set"},
		{"pin", "clear", "--auto", "never"},
		{"--etcd-endpoints", "http://127.0.0.1:1", "--etcd-cacert", "/nowhere"},
		{"--token-file", "/nowhere"},
		{"--state-configmap", "name"},
	} {
		u := aUser(t)
		if status, out, stderr := u.runs(args...); status != exitUsage || out != "" || stderr == "" {
			t.Errorf("%v: exit status %d: %s%s", args, status, out, stderr)
		}
	}
}

// The machinery of Talos makes a talosconfig where there is none. Who only looks makes nothing.
func TestATalosconfigThatIsNotThereIsNotMade(t *testing.T) {
	u := aUser(t)
	u.theCloudOfTalos()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("TALOSCONFIG", filepath.Join(home, "theirs"))
	for _, args := range [][]string{
		{"--talosconfig", filepath.Join(home, "mine")}, {"pin", "show", "--talosconfig", filepath.Join(home, "mine")}, {"pin", "show"}, {},
	} {
		if status, _, stderr := u.runs(args...); status == exitAgree {
			t.Errorf("%v: exit status %d: %s", args, status, stderr)
		}
	}
	left, err := os.ReadDir(home)
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v: %v", left, err)
	}
}

func TestTheTokenIsNoFlag(t *testing.T) {
	if f := auditCommand("").Flags().Lookup("token"); f != nil {
		t.Error("a token on the command line is everybody's to read")
	}
}

// theTalos is a fake Talos API of three control-plane nodes and a worker.
func theTalos(t *testing.T, version, config string) *lab.Talos {
	t.Helper()
	nodes := map[string]*lab.TalosNode{}
	for i, name := range []string{"cp-1", "cp-2", "cp-3", "worker-1"} {
		n := &lab.TalosNode{
			Version: version, Hostname: name, Platform: "hcloud", Announced: name, InstanceID: fmt.Sprint(101 + i), Config: []byte(config),
		}
		address := fmt.Sprintf("10.0.0.%d", i+1)
		if i < 3 {
			n.Member = &machine.EtcdMember{Id: uint64(0xa1 + i), Hostname: name, PeerUrls: []string{"https://" + address + ":2380"}}
		}
		nodes[address] = n
	}
	talos, err := lab.NewTalos(nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(talos.Close)
	return talos
}

func (u *user) theCloudOfTalos() *lab.Cloud {
	cloud, done := lab.NewCloud()
	u.t.Cleanup(done)
	for i, name := range []string{"cp-1", "cp-2", "cp-3", "worker-1"} {
		cloud.Add(lab.Server{ID: int64(101 + i), Name: name, Created: time.Now().Add(-time.Hour), Private: map[int64]string{1: fmt.Sprintf("10.0.0.%d", i+1)}})
	}
	u.t.Setenv("HCLOUD_TOKEN", lab.Token)
	u.t.Setenv("HCLOUD_ENDPOINT", cloud.URL)
	return cloud
}

func (u *user) talosconfig(talos *lab.Talos, role string, nodes ...string) {
	name, err := talos.Talosconfig(u.dir, role, nodes...)
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Setenv("TALOSCONFIG", name)
}

func TestThroughTalosAReaderIsEnough(t *testing.T) {
	u := aUser(t)
	talos := theTalos(t, "v1.12.7", "")
	u.theCloudOfTalos()
	u.talosconfig(talos, "os:reader")
	r := u.audits(exitAgree)
	expect(t, r)
	if r.Sources[1].Objects != 3 || r.Sources[4].Objects != 3 {
		t.Errorf("%+v", r.Sources)
	}
	talos.Change("10.0.0.1", func(n *lab.TalosNode) { n.Member.Hostname, n.Hostname = lab.Invented, lab.Invented })
	expect(t, u.audits(exitFindings), "host-name-differs", "member-name-invented")
	talos.Change("10.0.0.2", func(n *lab.TalosNode) { n.Sick = true })
	talos.Change("10.0.0.3", func(n *lab.TalosNode) { n.Down = true })
	expect(t, u.audits(exitFindings), "host-name-differs", "member-name-invented", "quorum-at-risk")
	for _, node := range []string{"10.0.0.1", "10.0.0.2"} {
		talos.Change(node, func(n *lab.TalosNode) { n.Down = true })
	}
	r = u.audits(exitSource)
	if r.Sources[1].State != audit.SourceFailed || r.Sources[4].State != audit.SourceFailed {
		t.Errorf("%+v", r.Sources)
	}
}

func TestTheTalosconfigThatWasFoundIsTheOneThatIsOpened(t *testing.T) {
	u := aUser(t)
	u.theCloudOfTalos()
	u.talosconfig(theTalos(t, "v1.12.7", ""), "os:reader", "10.0.0.1")
	var w where
	readers, err := w.readers()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TALOSCONFIG", filepath.Join(u.dir, "none"))
	asked := 0
	for _, r := range readers {
		if s := r.Source(); s != audit.Etcd && s != audit.Talos {
			continue
		}
		asked++
		if err := r.Read(t.Context(), new(audit.Snapshot)); err != nil {
			t.Errorf("%s: %v", r.Source(), err)
		}
	}
	if asked != 2 {
		t.Errorf("%d sources were asked through Talos", asked)
	}
}

const oldConfig = `version: v1alpha1
machine:
    type: controlplane # the first
    token: a.secret
    network: {}
    features:
        stableHostname: true
cluster:
    id: another-secret
`

const newConfig = `version: v1alpha1
machine:
    type: controlplane
    token: a.secret
---
apiVersion: v1alpha1
kind: HostnameConfig
auto: stable
---
apiVersion: v9
kind: OfTheFuture
what: nobody knows
`

func TestPin(t *testing.T) {
	for version, c := range map[string]struct{ config, form, cleared string }{
		"v1.9.1":  {oldConfig, "machine.network.hostname", oldConfig},
		"v1.12.7": {newConfig, "HostnameConfig", newConfig},
		"v1.13.0": {newConfig, "HostnameConfig", newConfig},
	} {
		t.Run(version, func(t *testing.T) {
			u := aUser(t)
			talos := theTalos(t, version, c.config)
			cloud := u.theCloudOfTalos()
			u.talosconfig(talos, "os:admin")
			nodes := "10.0.0.1,10.0.0.4"
			u.in = "y\ny\n"
			status, out, stderr := u.runs("pin", "set", "-n", nodes)
			if status != exitAgree || !strings.Contains(out, "+") || !strings.Contains(out, c.form) {
				t.Fatalf("%d: %s%s", status, out, stderr)
			}
			if strings.Contains(out, "secret") {
				t.Errorf("a secret is shown: %s", out)
			}
			for _, r := range talos.Applied() {
				if r.GetMode() != machine.ApplyConfigurationRequest_NO_REBOOT {
					t.Errorf("mode %s", r.GetMode())
				}
			}
			if n := len(talos.Applied()); n != 4 {
				t.Errorf("%d changes, want for each of two nodes one that is tried and one that is made", n)
			}
			status, out, stderr = u.runs("pin", "show", "-n", nodes)
			if status != exitAgree || strings.Count(out, "pinned to ") != 2 || !strings.Contains(out, "pinned to worker-1 by "+c.form) {
				t.Errorf("%d: %s%s", status, out, stderr)
			}
			if status, out, _ := u.runs("pin", "set", "-n", nodes); status != exitAgree || strings.Count(out, "already") != 2 {
				t.Errorf("again: %d: %s", status, out)
			}
			cloud.Rename(101, "renamed") // pinned is pinned: but to pin it now is refused
			if status, out, stderr = u.runs("pin", "clear", "-n", nodes, "--yes"); status != exitAgree {
				t.Errorf("%d: %s%s", status, out, stderr)
			}
			talos.Change("10.0.0.1", func(n *lab.TalosNode) {
				if string(n.Config) != c.cleared {
					t.Errorf("cleared, it is\n%s", n.Config)
				}
			})
		})
	}
}

func TestPinRefusesWhereNamesDoNotAgree(t *testing.T) {
	for why, change := range map[string]func(*lab.TalosNode, *lab.Cloud){
		"the metadata service says":  func(n *lab.TalosNode, _ *lab.Cloud) { n.Hostname = lab.Invented },
		"not told it a hostname":     func(n *lab.TalosNode, _ *lab.Cloud) { n.Announced = "" },
		"not hcloud":                 func(n *lab.TalosNode, _ *lab.Cloud) { n.Platform = "metal" },
		"instance id":                func(n *lab.TalosNode, _ *lab.Cloud) { n.InstanceID = "" },
		"is named renamed":           func(_ *lab.TalosNode, c *lab.Cloud) { c.Rename(101, "renamed") },
		"the cloud has no server":    func(_ *lab.TalosNode, c *lab.Cloud) { c.Delete(101) },
		"no hostname yet":            func(n *lab.TalosNode, _ *lab.Cloud) { n.Hostname = "" },
		"it refuses the change":      func(n *lab.TalosNode, _ *lab.Cloud) { n.Refuses = fmt.Errorf("no") },
		"cannot be reached":          func(n *lab.TalosNode, _ *lab.Cloud) { n.Down = true },
		"nothing was changed":        nil, // the answer is no
		"needs the role os:admin":    nil,
		"is named cp-9 in the cloud": func(n *lab.TalosNode, c *lab.Cloud) { c.Rename(101, "cp-9"); n.Domain = "" },
	} {
		t.Run(why, func(t *testing.T) {
			u := aUser(t)
			talos := theTalos(t, "v1.12.7", newConfig)
			cloud := u.theCloudOfTalos()
			role, yes := "os:admin", "--yes"
			switch why {
			case "nothing was changed":
				u.in, yes = "n\n", "--yes=false"
			case "needs the role os:admin":
				role = "os:reader"
			default:
				talos.Change("10.0.0.1", func(n *lab.TalosNode) { change(n, cloud) })
			}
			u.talosconfig(talos, role)
			status, out, stderr := u.runs("pin", "set", yes, "-n", "10.0.0.1")
			if status != exitFindings || !strings.Contains(stderr, why) {
				t.Errorf("exit status %d: %s%s", status, out, stderr)
			}
			for _, r := range talos.Applied() {
				if !r.GetDryRun() {
					t.Errorf("it was changed: %s", r.GetData())
				}
			}
		})
	}
}

// docs/audit.md has every kind of finding, and no other; docs/cluster-api.md every rule.
func TestTheDocumentationHasEveryFinding(t *testing.T) {
	for page, want := range map[string][]string{"audit.md": nil, "cluster-api.md": nil} {
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		var has []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(string(text), -1) {
			if m[1] != "cloud" && m[1] != "kubernetes" && m[1] != "clusterapi" && m[1] != "etcd" && m[1] != "talos" {
				has = append(has, m[1])
			}
		}
		if page == "audit.md" {
			for _, k := range audit.Catalogue() {
				want = append(want, string(k.ID))
			}
		} else {
			for _, r := range capi.Rules() {
				want = append(want, r.ID)
			}
		}
		slices.Sort(has)
		slices.Sort(want)
		if !slices.Equal(has, want) {
			t.Errorf("%s has\n%v, want\n%v", page, has, want)
		}
	}
}

func TestCheckOfManifests(t *testing.T) {
	u := aUser(t)
	if status, out, stderr := u.runs("capi", "check", "../../examples/cluster-api/nametag.yaml", "-o", "text"); status != exitAgree || !strings.Contains(out, "no findings") {
		t.Errorf("%d: %s%s", status, out, stderr)
	}
	u.in = "apiVersion: bootstrap.cluster.x-k8s.io/v1alpha3\nkind: TalosConfig\nmetadata: {name: x}\nspec:\n  hostname:\n    source: MachineName\n"
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"-"}, exitFindings, "+    source: InfrastructureName"},
		{[]string{"-", "-o", "json"}, exitFindings, `"line": 6`},
		{[]string{"../../examples/cluster-api/clusterclass.yaml", "-o", "json"}, exitAgree, `"talosVersion"`},
		{[]string{"-", "-o", "sarif"}, exitFindings, `"startLine": 6`},
		{[]string{"/nowhere"}, exitSource, ""},
		{[]string{"../../docs/audit.md"}, exitSource, ""},
		{[]string{"-", "-o", "xml"}, exitUsage, ""},
		{nil, exitUsage, ""},
	} {
		status, out, stderr := u.runs(append([]string{"capi", "check"}, c.args...)...)
		if slices.Contains(c.args, "json") {
			conforms(t, "capi", out)
		}
		if status != c.status || !strings.Contains(out, c.want) || status > exitFindings && stderr == "" {
			t.Errorf("%v: %d: %s%s", c.args, status, out, stderr)
		}
	}
}
