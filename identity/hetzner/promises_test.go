package hetzner

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
)

// What the documentation promises of concurrency and bad arguments. Each test has the name of its sentence.

func TestASourceMayBeUsedBySeveralGoroutines(t *testing.T) {
	s := serve(t)
	src := Source(WithEndpoint(s.endpoint()))
	before := *src.(*source)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			a, err := src.Fetch(ctx, hostPath(t))
			if err != nil || a.Hostname != "my-server" || a.InstanceID != "42" {
				t.Errorf("%+v, %v", a, err)
				return
			}
			var id identity.Identity
			if err := a.More(ctx, &id); err != nil || id.Region != "eu-central" {
				t.Errorf("%+v, %v", id, err)
			}
			if _, err := src.Addresses(); err != nil || src.Present(dmi.Facts{Vendor: Vendor}) != identity.PresenceYes || src.InstanceID(dmi.Facts{Serial: "42"}) != "42" {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if after := *src.(*source); after != before {
		t.Errorf("it is not stateless: %+v", after)
	}
}

func TestAnOptionThatCannotBeIsAnErrorOfTheSourcesMethods(t *testing.T) {
	for about, src := range map[string]identity.Source{
		"nil":                    Source(nil),
		"nil, among others":      Source(WithEndpoint("http://127.0.0.1/"), nil),
		"an endpoint by name":    Source(WithEndpoint("http://metadata.example/")),
		"an endpoint by https":   Source(WithEndpoint("https://169.254.169.254/")),
		"an endpoint of no kind": Source(WithEndpoint("://")),
	} {
		t.Run(about, func(t *testing.T) {
			if addrs, err := src.Addresses(); err == nil {
				t.Errorf("it dials %v", addrs)
			}
			via := earlynet.NewPath(t.Context(), "eth0", earlynet.DHCP, nil) // which is a panic where it is dialled
			if a, err := src.Fetch(t.Context(), via); err == nil {
				t.Errorf("it answers %+v", a)
			}
			paths := make(chan *earlynet.Path, 1)
			paths <- via
			r := identity.Resolver{Source: src, Paths: paths, ExpectID: "42"}
			_, err := r.Resolve(t.Context())
			if config, is := errors.AsType[*identity.ConfigError](err); !is || config.Field != "Source" {
				t.Errorf("Resolve: %v", err)
			}
		})
	}
}
