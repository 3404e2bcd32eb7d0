// Command resolve is the library in twenty lines: it prints this server's name, or says why it cannot.
//
// It takes the interfaces named as arguments, or every physical one.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	id, err := identity.Resolve(ctx, hetzner.Source(), identity.OverLinks(earlynet.Config{NICs: os.Args[1:]}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(id.Hostname)
}
