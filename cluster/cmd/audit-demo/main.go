// Command audit-demo shows nametag-audit at work on the cluster that nametag was made because of, without a cloud: a real etcd of
// three members, an API server, and a fake API of Hetzner Cloud.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/nametag-boot/nametag/cluster/command"
	"github.com/nametag-boot/nametag/cluster/lab"
)

func main() {
	_, genuine := lab.APIServer()
	flag.BoolVar(&genuine, "real", genuine, "take the real kube-apiserver, which hack/kube-deps builds; else a small stand-in")
	page := flag.String("page", "", "leave it broken, and serve the auditor's page and metrics at this address, such as 127.0.0.1:9477, until a signal comes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx, os.Stdout, genuine, *page)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "audit-demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, out io.Writer, genuine bool, page string) (err error) {
	s, err := lab.NewSeed(ctx, 40, genuine)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Ghost(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nametag-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kubeconfig, err := s.Kube.Kubeconfig(dir)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"HCLOUD_TOKEN": lab.Token, "HCLOUD_ENDPOINT": s.Cloud.URL, "KUBECONFIG": kubeconfig, "TALOSCONFIG": dir + "/none"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	say := func(format string, args ...any) { fmt.Fprintf(out, "\n== "+format+"\n\n", args...) }
	audit := func() int {
		args := []string{"--etcd-endpoints", strings.Join(s.Etcd.Endpoints(), ","), "--grace", "1ns"}
		fmt.Fprintf(out, "$ nametag-audit %s\n", strings.Join(args[:2], " "))
		status := command.Run(ctx, "demo", args, os.Stdin, out, os.Stderr)
		fmt.Fprintf(out, "(exit status %d)\n", status)
		return status
	}
	say("A control plane of three on a fake Hetzner Cloud, with a real etcd and %s.\n   One machine called itself %s before it knew that it is %s.", s.Kube.What, lab.Invented, lab.Right)
	if status := audit(); status != 1 {
		return fmt.Errorf("the broken cluster: exit status %d, want 1", status)
	}
	if page != "" {
		say("It stays as it is: http://%s/ has the page, and /metrics.", page)
		args := []string{"--etcd-endpoints", strings.Join(s.Etcd.Endpoints(), ","), "--grace", "1ns", "--watch", "--listen", page}
		if status := command.Run(ctx, "demo", args, os.Stdin, out, os.Stderr); status != 0 {
			return fmt.Errorf("the watch: exit status %d", status)
		}
		return nil
	}
	say("The remedy: that one machine is restarted, knowing its name. Its member keeps its id and its data.")
	m := s.Etcd.Members[0]
	before := m.ID()
	if err := m.Restart(ctx, lab.Right); err != nil {
		return err
	}
	fmt.Fprintf(out, "member %x was %s and is %s\n", before, lab.Invented, lab.Right)
	if m.ID() != before {
		return fmt.Errorf("the member has another id now: %x", m.ID())
	}
	say("And the ghost is deleted: kubectl delete node %s", lab.Invented)
	if err := s.Kube.Delete(ctx, lab.Nodes, "", lab.Invented); err != nil {
		return err
	}
	if status := audit(); status != 0 {
		return fmt.Errorf("the mended cluster: exit status %d, want 0", status)
	}
	return nil
}
