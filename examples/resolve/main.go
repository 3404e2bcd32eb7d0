// Command resolve is the library in twenty lines: it prints this server's name, or says why it cannot.
//
// It takes the interfaces named as arguments, or every physical one.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
)

func main() {
	id, err := resolve(os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id.Hostname)
}

func resolve(nics []string) (*identity.Identity, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r := identity.Resolver{Source: hetzner.Source(), Link: earlynet.Config{NICs: nics}}
	return r.Resolve(ctx)
}
