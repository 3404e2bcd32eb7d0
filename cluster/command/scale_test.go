package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nametag-boot/nametag/cluster/lab"
)

// actAs makes the test's own program nametag-audit, so that what it takes can be told from what the lab takes.
const actAs = "NAMETAG_AUDIT_TEST_ACT_AS"

func TestMain(m *testing.M) {
	if os.Getenv(actAs) != "" {
		status := Run(context.Background(), "test", os.Args[1:], os.Stdin, io.Discard, os.Stderr)
		// Not by what the parent is told at the end: that counts what the parent itself had when it made the child.
		of, _ := os.ReadFile("/proc/self/status")
		fmt.Print(string(of))
		os.Exit(status)
	}
	// The users of the tests have homes of their own.
	if err := os.Setenv("NAMETAG_CACHE", lab.Cache()); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// aLargeProject is one of 1,000 servers, 5,000 nodes as large as a kubelet makes them, and seven members. It gives the arguments to
// audit it, and their environment.
func aLargeProject(tb testing.TB) (args, env []string) {
	tb.Helper()
	dir := tb.TempDir()
	kube := lab.NewStandIn(false)
	tb.Cleanup(func() { kube.Close() })
	cloud, done := lab.NewCloud()
	tb.Cleanup(done)
	etcd, err := lab.NewEtcd(tb.Context(), 49, "node-0", "node-1", "node-2", "node-3", "node-4", "node-5", "node-6")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { etcd.Close() })
	images := make([]any, 50)
	for i := range images {
		images[i] = map[string]any{"names": []any{fmt.Sprintf("registry.example.com/team/image-%d@sha256:%064d", i, i)}, "sizeBytes": int64(123456789)}
	}
	for i := range 5000 {
		address, provider := fmt.Sprintf("10.0.%d.%d", i/250, i%250), fmt.Sprintf("hrobot://%d", i)
		if i < 7 {
			address = etcd.Members[i].Address
		}
		if i < 1000 {
			provider = fmt.Sprintf("hcloud://%d", 1000+i)
			cloud.Add(lab.Server{ID: int64(1000 + i), Name: fmt.Sprintf("node-%d", i), Created: time.Now().Add(-time.Hour), Private: map[int64]string{1: address}})
		}
		o := lab.Node{Name: fmt.Sprintf("node-%d", i), ProviderID: provider, Address: address, ControlPlane: i < 7, Age: time.Hour}.Object()
		if err := unstructured.SetNestedSlice(o.Object, images, "status", "images"); err != nil {
			tb.Fatal(err)
		}
		kube.Add(lab.Nodes, o)
	}
	kubeconfig, err := kube.Kubeconfig(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return []string{"--kubeconfig", kubeconfig, "--etcd-endpoints", strings.Join(etcd.Endpoints(), ","), "--timeout", "5m"},
		[]string{actAs + "=1", "HOME=" + dir, "HCLOUD_TOKEN=" + lab.Token, "HCLOUD_ENDPOINT=" + cloud.URL, "GOMEMLIMIT=160MiB"}
}

// auditItself runs the program and gives its largest size in memory.
func auditItself(tb testing.TB, args, env []string) int64 {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(tb.Context(), self, args...)
	cmd.Env = env
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return largest(tb, out)
}

// largest is the largest size in memory that a process has had so far, by its status in /proc.
func largest(tb testing.TB, status []byte) int64 {
	tb.Helper()
	most := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if most == nil {
		tb.Fatalf("no size in %s", status)
	}
	size, err := strconv.ParseInt(string(most[1]), 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return size << 10
}

// watchItself runs the program with --watch until its first round is done, and gives its largest size in memory by then.
func watchItself(t *testing.T, args, env []string) int64 {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stderr said
	cmd := exec.CommandContext(t.Context(), self, append(args, "--watch", "--listen", "127.0.0.1:0", "--interval", "1h")...)
	cmd.Env, cmd.Stderr = env, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	url := ""
	becomes(t, "it listens", func() bool { url = listening(stderr.String()); return url != "" })
	becomes(t, "the first round is done", func() bool {
		_, m := fetch(t, url+"/metrics")
		return strings.Contains(m, `nametag_audit_machines{agree="true"} 5000`)
	})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return largest(t, status)
}

func TestALargeProjectFitsIntoItsPod(t *testing.T) {
	args, env := aLargeProject(t)
	for how, size := range map[string]int64{"once": auditItself(t, args, env), "watched": watchItself(t, args, env)} {
		if size > 200<<20 {
			t.Errorf("%s, it took %d MiB, and the pod has 200", how, size>>20)
		} else {
			t.Logf("%s: %d MiB", how, size>>20)
		}
	}
}

func BenchmarkLargeProject(b *testing.B) {
	args, env := aLargeProject(b)
	var most int64
	for b.Loop() {
		most = max(most, auditItself(b, args, env))
	}
	b.ReportMetric(float64(most)/(1<<20), "MiB")
}
