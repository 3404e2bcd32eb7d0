//go:build linux

package identity_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/identity/identitytest"
	"github.com/nametag-boot/nametag/procfs"
)

// Inside a system that has its network already. On a server, the source would
// be hetzner.Source().
func ExampleResolver_Resolve() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	src := identitytest.New(
		identitytest.Fail(errors.New("connection refused")), // not yet
		identitytest.Answer("db1.example.com", "42"),
	)
	r := identity.Resolver{Source: src, Host: true, Facts: &dmi.Facts{Serial: "42"}}
	id, err := r.Resolve(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Hostname, id.ShortName(), id.Domain, id.InstanceID)
	// Output: db1.example.com db1 example.com 42
}

// What to do about each kind of error.
func ExampleResolver_Resolve_errors() {
	src := identitytest.New()
	src.Presence = identity.PresenceNo

	r := identity.Resolver{Source: src, Facts: &dmi.Facts{Vendor: "QEMU"}}
	_, err := r.Resolve(context.Background())
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

// In an init: a link of its own on every card, and the name at its proof, before
// that link is undone.
func ExampleResolve() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()

	id, err := identity.Resolve(ctx, hetzner.Source())
	if err != nil {
		log.Print(err) // says for each path why there was no name
		return
	}
	if err := unix.Sethostname([]byte(id.ShortName())); err != nil {
		log.Print(err)
	}
}

// Progress: OnEvent hears what happens, OnName has the name as soon as it is proven.
func ExampleResolver() {
	bar := func(path identity.PathInfo, attempt int, next time.Duration) {} // that counts down

	r := identity.Resolver{
		Source:  identitytest.New(identitytest.Answer("my-server", "42")),
		Host:    true,
		Minimal: true,
		Facts:   &dmi.Facts{Serial: "42"},
		OnName:  func(id identity.Identity) { fmt.Println("it is", id.Hostname) },
		OnEvent: func(e identity.Event) {
			if e.Next > 0 {
				bar(e.Path, e.Try, e.Next-e.At)
			}
			if e.Kind != identity.EventAttempt { // which is for bars alone
				fmt.Println(e.Level(), e.Kind)
			}
		},
	}
	if _, err := r.Resolve(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// DEBUG platform
	// INFO link
	// DEBUG trying
	// INFO named
	// it is my-server
}

// What the kernel argument asks for.
func ExampleFromPolicy() {
	line, err := procfs.ParseString("talos.hostname.wait=2m,nic=eth*,via=dhcp,keep=network")
	if err != nil {
		fmt.Println(err) // and line has the default policy
	}
	r, err := identity.FromPolicy(line.Policy)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(line.Policy.Wait, r.Link.NICs, r.Link.Methods, r.Keep) //nolint:staticcheck // methods, not bytes
	// Output: 2m0s [eth*] [dhcp] true
}

func ExampleValidateHostname() {
	fmt.Println(identity.ValidateHostname("example-controlplane-3d3d26d1-69c5k"))
	fmt.Println(identity.ValidateHostname("<html>"))
	// Output:
	// <nil>
	// "<html>" is no host name: '<' at byte 0 is neither letter, digit, hyphen nor dot
}
