package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nametag-boot/nametag/cluster/lab"
	"github.com/nametag-boot/nametag/internal/pages"
)

// A cluster is the one that the pages speak of: three control planes, of which the second is cp-1, on stand-ins of everything.
type cluster struct {
	*user
	cloud *lab.Cloud
	top   string // of the tree
}

func theCluster(t *testing.T) *cluster {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{user: aUser(t), top: top}
	talos := theTalos(t, "v1.12.7", newConfig)
	var done func()
	c.cloud, done = lab.NewCloud()
	t.Cleanup(done)
	t.Setenv("HCLOUD_TOKEN", lab.Token)
	t.Setenv("HCLOUD_ENDPOINT", c.cloud.URL)
	nodes, management := lab.NewStandIn(false), lab.NewStandIn(true)
	t.Cleanup(func() { nodes.Close(); management.Close() })
	for i, name := range []string{"cp-0", "cp-1", "cp-2", "worker-1"} {
		id, address := int64(4711000+i), fmt.Sprintf("10.0.0.%d", i+1)
		c.cloud.Add(lab.Server{ID: id, Name: name, Created: time.Now().Add(-time.Hour), Private: map[int64]string{1: address}})
		talos.Change(address, func(n *lab.TalosNode) {
			n.Hostname, n.Announced, n.InstanceID = name, name, fmt.Sprint(id)
			if n.Member != nil {
				n.Member.Hostname = name
			}
		})
		node := lab.Node{Name: name, Address: address, ProviderID: fmt.Sprintf("hcloud://%d", id), ControlPlane: i < 3, Age: time.Hour}
		if err := nodes.Put(t.Context(), lab.Nodes, node.Object()); err != nil {
			t.Fatal(err)
		}
	}
	manifest, err := os.ReadFile(filepath.Join(top, "examples/cluster-api/nametag.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := lab.Objects(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		kind := o.GroupVersionKind()
		management.Add(schema.GroupVersionResource{Group: kind.Group, Version: kind.Version, Resource: strings.ToLower(kind.Kind) + "s"}, o)
	}
	c.in = string(manifest) // what kustomize would build
	c.kubeconfigs(nodes, management)
	name, err := talos.Talosconfig(c.dir, "os:admin")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name, filepath.Join(c.dir, "talosconfig")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TALOSCONFIG", filepath.Join(c.dir, "talosconfig"))
	if err := os.Symlink(filepath.Join(top, "examples"), filepath.Join(c.dir, "examples")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(c.dir)
	return c
}

// kubeconfigs makes the file kubeconfig, of the cluster, and a second one of the context management, both of $KUBECONFIG.
func (c *cluster) kubeconfigs(nodes, management *lab.StandIn) {
	t := c.t
	t.Helper()
	second, err := management.Kubeconfig(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	second = filepath.Join(c.dir, "management")
	if err := os.WriteFile(second, []byte(strings.ReplaceAll(string(text), ": lab\n", ": management\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := nodes.Kubeconfig(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", first+":"+second)
}

// does runs a command as a page has it, and returns what the program was given, and how it ended.
func (c *cluster) does(command string) {
	t := c.t
	t.Helper()
	if m := regexp.MustCompile(`^hcloud server update (\d+) --name (\S+)`).FindStringSubmatch(command); m != nil {
		var id int64
		if _, err := fmt.Sscan(m[1], &id); err != nil {
			t.Fatal(err)
		}
		c.cloud.Rename(id, m[2])
		return
	}
	args := argsOf(command)
	if strings.Contains(command, " --watch") {
		c.watches(command, args)
		return
	}
	standard := c.in
	if slices.Contains(args, "pin") {
		c.in = "y\ny\n"
	}
	status, out, stderr := c.runs(args...)
	c.in = standard
	if status != exitAgree || out == "" {
		t.Errorf("%s\nexit status %d: %s%s", command, status, out, stderr)
	}
}

// argsOf are the auditor's arguments of a command: what a shell does before is left out.
func argsOf(command string) []string {
	if _, behind, piped := strings.Cut(command, "| "); piped {
		command = behind
	}
	var args []string
	for _, word := range strings.Fields(command) {
		switch {
		case word == "nametagctl", word == "nametag-audit", len(args) == 0 && (word == "audit" || strings.HasPrefix(word, "HCLOUD_TOKEN=")):
		default:
			args = append(args, word)
		}
	}
	return args
}

// watches runs a command that does not end by itself, until its page is there.
func (c *cluster) watches(command string, args []string) {
	t := c.t
	t.Helper()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "127.0.0.1:9477", "127.0.0.1:0") // that may be somebody's
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr said
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, "test", args, strings.NewReader(""), &stderr, &stderr) }()
	becomes(t, "it says where it listens", func() bool { return listening(stderr.String()) != "" || len(ended) > 0 })
	if url := listening(stderr.String()); url == "" {
		t.Errorf("%s\n%s", command, stderr.String())
	} else if code, page := fetch(t, url+"/"); code != 200 && code != 503 { // the first round may go on
		t.Errorf("%s\n%d %s", command, code, page)
	}
	cancel()
	if status := <-ended; status != exitAgree {
		t.Errorf("%s\nexit status %d: %s", command, status, stderr.String())
	}
}

// Every command of the auditor's that a page has runs, in the order of the page, on one cluster.
func TestTheCommandsOfTheDocumentationRun(t *testing.T) {
	all, err := pages.Commands("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen, byPage := 0, map[string][]string{}
	for _, c := range all {
		if guard, ok := c.Guard(); ok && guard == pages.Cluster {
			command, _, _ := strings.Cut(c.Text, " #")
			byPage[c.Page] = append(byPage[c.Page], strings.TrimSpace(command))
			seen++
		}
	}
	for page, commands := range byPage {
		t.Run(page, func(t *testing.T) {
			c := theCluster(t)
			for _, command := range commands {
				c.does(command)
			}
		})
	}
	if seen < 15 {
		t.Errorf("only %d commands were found", seen)
	}
}

// each calls do for a command and all below it.
func each(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, below := range cmd.Commands() {
		each(below, do)
	}
}

// Every example of every help runs, too.
func TestTheExamplesOfTheHelpsRun(t *testing.T) {
	seen := 0
	each(rootCommand("test"), func(cmd *cobra.Command) {
		if cmd.Example == "" {
			return
		}
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			c := theCluster(t)
			for line := range strings.Lines(cmd.Example) {
				command, _, _ := strings.Cut(line, " #")
				seen++
				c.does(strings.TrimSpace(command))
			}
		})
	})
	if seen < 8 {
		t.Errorf("only %d examples were found", seen)
	}
}

// A flag that a message names is one of the command whose file has it; what several commands share may name any.
func TestEveryFlagThatAMessageNamesIsThere(t *testing.T) {
	// kubectl's and talosctl's, in remedies.
	others := []string{"--type", "--namespace", "--wait", "--ignore-daemonsets", "--delete-emptydir-data", "--name", "--help", "--insecure"}
	known := map[string][]string{}
	each(rootCommand("test"), func(cmd *cobra.Command) {
		group := append(strings.Fields(cmd.CommandPath()), "audit")[1] // the root is audit
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			known[group] = append(known[group], "--"+f.Name)
			known[""] = append(known[""], "--"+f.Name)
		})
	})
	known["audit"] = append(known["audit"], known["accept"]...) // of the same file
	messages, err := pages.Messages("..")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, m := range messages {
		if strings.Contains(m.File, "/cmd/") || strings.Contains(m.File, "/lab/") || strings.Contains(m.File, "/deploy/") {
			continue // other programs'
		}
		group := strings.TrimSuffix(filepath.Base(m.File), ".go")
		if known[group] == nil || filepath.Base(filepath.Dir(m.File)) != "command" {
			group = ""
		}
		for _, f := range m.Flags() {
			seen++
			if !slices.Contains(known[group], f) && !slices.Contains(others, f) {
				t.Errorf("%s: a message names %s, which %s does not have: %s", m.File, f, group, m.Text)
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d flags were found", seen)
	}
}

// full is a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// Who is to read what a command prints must not take nothing for an answer.
func TestWhatCannotBePrintedIsAFailure(t *testing.T) {
	c := theCluster(t)
	fails := func(want int, args ...string) {
		t.Helper()
		var stderr strings.Builder
		status := Run(t.Context(), "test", args, strings.NewReader(c.in), full{}, &stderr)
		if status != want || !strings.Contains(stderr.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%v: exit status %d, want %d: %s", args, status, want, &stderr)
		}
	}
	walked := 0
	each(rootCommand("test"), func(cmd *cobra.Command) {
		walked++
		fails(unprinted(cmd), append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
	})
	if walked < 10 {
		t.Errorf("%d commands were walked", walked)
	}
	for _, line := range []string{
		"", "-o json", "-o yaml", "accept 4711001 --state names.json", "findings", "schema", "--version", "capi check -", "capi check - -o json", "capi check - -o sarif",
	} {
		fails(exitSource, strings.Fields(line)...)
	}
	for _, line := range []string{"pin show -n 10.0.0.2", "pin set -n 10.0.0.2 --yes", "pin clear -n 10.0.0.2 --yes"} {
		fails(exitFindings, strings.Fields(line)...)
	}
}
