package identity_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/identitytest"
)

// Inside a system that has its network already. On a server, the source would
// be hetzner.Source().
func ExampleResolve() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	src := identitytest.New(
		identitytest.Fail(errors.New("connection refused")), // not yet
		identitytest.Answer("db1.example.com", "42"),
	)
	id, err := identity.Resolve(ctx, src, identity.OverHost(), identity.WithFacts(dmi.Facts{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Hostname, id.ShortName(), id.Domain, id.InstanceID)
	// Output: db1.example.com db1 example.com 42
}

// What to do about each kind of error.
func ExampleResolve_errors() {
	src := identitytest.New()
	src.Presence = identity.No

	_, err := identity.Resolve(context.Background(), src, identity.WithFacts(dmi.Facts{Vendor: "QEMU"}))
	var (
		notHere *identity.NotPresentError
		timeout *identity.TimeoutError
	)
	switch {
	case errors.As(err, &notHere):
		fmt.Println("boot on, the name is somebody else's matter:", err)
	case errors.As(err, &timeout):
		fmt.Println("reboot, rather than start with a wrong name:", err)
	}
	// Output: boot on, the name is somebody else's matter: identity: this machine is not on test: its DMI vendor is "QEMU"
}

// The name is known before the link is undone.
func ExampleWithObserver() {
	src := identitytest.New(identitytest.Answer("my-server", "42"))
	observe := func(e identity.Event) {
		if e.Kind == identity.Named {
			fmt.Println(e.Path, e.Detail)
		}
	}
	_, err := identity.Resolve(context.Background(), src,
		identity.OverHost(), identity.WithFacts(dmi.Facts{}), identity.WithObserver(observe))
	if err != nil {
		fmt.Println(err)
	}
	// Output: host my-server
}

func ExampleValidateHostname() {
	fmt.Println(identity.ValidateHostname("example-controlplane-3d3d26d1-69c5k"))
	fmt.Println(identity.ValidateHostname("<html>"))
	// Output:
	// <nil>
	// "<html>" is no host name: '<' at byte 0 is neither letter, digit, hyphen nor dot
}

func ExampleBackoff() {
	b := identity.Backoff{
		Base: 100 * time.Millisecond, Cap: time.Second,
		Rand: func(n int64) int64 { return n - 1 }, // no jitter, for the example's sake
	}
	for range 5 {
		fmt.Print(b.Next(), " ")
	}
	// Output: 100ms 200ms 400ms 800ms 1s
}
