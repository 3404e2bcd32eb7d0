// Command nametag-audit compares the names that every machine of a cluster has: in the cloud, in etcd, in Kubernetes and in
// Cluster API. It also pins a Talos node's name.
//
// nametagctl finds it beside itself, as nametagctl audit and pin.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/nametag-boot/nametag/cluster/command"

	_ "golang.org/x/crypto/x509roots/fallback" // for an image that has no roots of its own: the system's are taken where there are some
)

// version is set by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := command.Run(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
