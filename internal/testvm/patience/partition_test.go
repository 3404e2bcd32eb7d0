//go:build linux

package patience

import (
	"bytes"
	"context"
	"flag"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// TestMain has all tests wait at the same time, however few processors there are: they do nothing else.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	netns.Main(m)
}

const (
	name = "my-server.example.com"
	// partition is how long the network is not there.
	partition = 30 * time.Second
	// backoffCap is the longest time between two attempts (identity.Backoff), and overtime what an attempt may take.
	backoffCap = 10 * time.Second
	overtime   = time.Second
)

var (
	nothing = cloud.Impairment{Loss: 1}
	bothWay = cloud.Link{Up: nothing, Down: nothing}
)

// After a partition of 30 s, when the back-off and the hedges have long been at their ends, the right name comes within
// the longest time between two attempts.
func TestAPartitionOf30Seconds(t *testing.T) {
	netns.Require(t)
	nametag := helpertest.Binary(t, runtime.GOARCH)
	for _, s := range []struct {
		about string
		shape cloud.Shape
		link  cloud.Link // during the partition
		via   string     // the only method; all if empty
		// after is how long all was well on the link, with a service that says nothing yet.
		after time.Duration
	}{
		{about: "in both directions", link: bothWay},
		{about: "in both directions, on a private network", shape: cloud.Private, link: bothWay},
		{about: "in both directions, and DHCP is the only way", link: bothWay, via: "dhcp"},
		{about: "of what the node sends", link: cloud.Link{Up: nothing}},
		{about: "of what the node gets", link: cloud.Link{Down: nothing}},
		{about: "that begins when there are connections", link: bothWay, after: 2 * time.Second},
	} {
		t.Run(s.about, func(t *testing.T) {
			t.Parallel()
			cfg := cloud.Config{Server: cloud.Server{Hostname: name}}
			if s.after > 0 {
				cfg.Metadata = []cloud.Phase{{Until: s.after + partition, Answer: cloud.Silent()}}
			}
			n := plugged(t, cfg, cloud.NIC{Name: "eth0", Shape: s.shape})
			before := n.network()
			if s.after == 0 {
				n.set(s.link)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			args := []string{"resolve", "--nic", "eth0", "--wait", (s.after + partition + backoffCap + overtime).String(), "--dmi", n.dmi}
			if s.via != "" {
				args = append(args, "--via", s.via)
			}
			cmd := exec.CommandContext(ctx, nametag, args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := n.Start(cmd); err != nil {
				t.Fatal(err)
			}
			if s.after > 0 {
				time.Sleep(s.after)
				n.set(s.link)
			}
			time.Sleep(partition)
			early := len(n.cloud.Requests())
			n.set(cloud.Link{})
			err := cmd.Wait()
			if err != nil || stdout.String() != name+"\n" {
				t.Errorf("%q (%v)\n%s", &stdout, err, &stderr)
			}
			if asked := len(n.cloud.Requests()); asked == early {
				t.Error("nobody asked after the partition")
			}
			if s.after == 0 && s.link.Up == nothing && early > 0 {
				t.Errorf("%d requests came through the partition", early)
			}
			if after := n.network(); after != before {
				t.Errorf("traces left:\n%s\nit was:\n%s", after, before)
			}
		})
	}
}

// A node is one with one NIC, plugged into a cloud of its own.
type node struct {
	*netns.Node
	t     *testing.T
	cloud *cloud.Cloud
	dmi   string // the folder with its firmware's facts
}

func plugged(t *testing.T, cfg cloud.Config, nic cloud.NIC) node {
	t.Helper()
	c, err := cloud.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	made, err := netns.New(netns.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	port, err := made.Plug(nic.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Attach(nic, port); err != nil {
		t.Fatal(err)
	}
	facts := t.TempDir()
	if err := c.WriteDMI(facts); err != nil {
		t.Fatal(err)
	}
	return node{made, t, c, facts}
}

// set changes the cable.
func (n node) set(l cloud.Link) {
	n.t.Helper()
	if err := n.cloud.SetLink("eth0", l); err != nil {
		n.t.Error(err)
	}
}

// network is what the node has of a network, as text.
func (n node) network() string {
	n.t.Helper()
	cmd := exec.Command("sh", "-ec", "ip -o addr; ip -4 route show table all; ip -6 route show table all; ip rule; ip -o link | grep -o '^[^>]*>'")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Run(cmd); err != nil {
		n.t.Errorf("%v: %s", err, &out)
	}
	return strings.TrimSpace(out.String())
}
