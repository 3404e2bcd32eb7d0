package identitytest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/identitytest"
)

// A service that is not ready, then forgets a request, then answers.
func Example() {
	src := identitytest.New(
		identitytest.Fail(errors.New("connection refused")),
		identitytest.Silence(),
		identitytest.After(time.Millisecond, identitytest.Answer("my-server", "42")),
	)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := identity.Resolver{Source: src, Paths: identitytest.Paths("eth0/dhcp"), Facts: &dmi.Facts{Serial: "42"}}
	id, err := r.Resolve(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Hostname, "by", id.Path)
	// Output: my-server by eth0/dhcp
}

// A script for each path. What Fetch does can be looked at without Resolve.
func ExampleSource_On() {
	src := identitytest.New().
		On("eth0/dhcp", identitytest.Answer("public", "42")).
		On("eth1/dhcp", identitytest.Fail(errors.New("no route to host")))
	for _, ifname := range []string{"eth0", "eth1"} {
		via := earlynet.NewPath(context.Background(), ifname, earlynet.DHCP, nil)
		answer, err := src.Fetch(context.Background(), via)
		fmt.Printf("%s: %q, %v\n", via, answer.Hostname, err)
	}
	// Output:
	// eth0/dhcp: "public", <nil>
	// eth1/dhcp: "", no route to host
}

// Over the paths of a machine that nobody has, without privileges.
func ExamplePaths() {
	src := identitytest.New(identitytest.Fail(errors.New("no route to host"))).
		On("eth1/dhcp", identitytest.Answer("my-server", "42"))
	r := identity.Resolver{
		Source: src,
		Paths:  identitytest.Paths("eth0/linklocal", "eth0/dhcp", "eth1/dhcp"),
		Facts:  &dmi.Facts{Serial: "42"},
	}
	id, err := r.Resolve(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Hostname, "by", id.Path)
	// Output: my-server by eth1/dhcp
}
