// Package lab runs a command in a network namespace of its own that is plugged into a fake Hetzner cloud.
package lab

import (
	"errors"
	"fmt"
	"time"
)

// ErrLinux is what a lab is on other systems: it is made of Linux' namespaces.
var ErrLinux = errors.New("this needs Linux: it is made of network namespaces; in a container or a virtual machine with Linux it runs")

// StatusFailed is the exit status where the lab itself failed, as opposed to the command in it; 126 and 127 are a shell's.
const (
	StatusFailed     = 125
	StatusNotRun     = 126
	StatusNotFound   = 127
	statusOfSignal   = 128
	defaultHostname  = "example-controlplane-3d3d26d1-69c5k"
	defaultBehaviour = "unreachable"
)

// Options describe the cloud of a lab.
type Options struct {
	Hostname, InstanceID              string
	RTT                               time.Duration
	Loss, Duplicate, Reorder, Corrupt float64 // shares, from 0 to 1
	MetadataAfter                     time.Duration
	MetadataUntil                     string // one of Behaviours, or an HTTP status
	Tree                              string // a folder with the documents of another cloud's service; empty: Hetzner's
	Shapes                            []string
	Pcap                              string // a file; empty: none
	Seed                              uint64
}

// Default is what a lab is, unless told otherwise.
func Default() Options {
	return Options{Hostname: defaultHostname, InstanceID: "42", MetadataUntil: defaultBehaviour, Shapes: []string{"public"}}
}

// Behaviours are what a metadata service does that does not answer rightly; an HTTP status is one too.
func Behaviours() []string { return []string{"unreachable", "dropped", "refused", "silent"} }

// Shapes are the networks that there are.
func Shapes() []string { return []string{"public", "private", "ipv6-only", "dead"} }

// An ExitError is how a lab ended that did not end well: the command's own status, without an error, or the lab's.
type ExitError struct {
	Status int
	Err    error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Check says what is wrong with the options, by the name of the flag.
func (o Options) Check() error {
	for _, s := range []struct {
		flag  string
		share float64
	}{{"loss", o.Loss}, {"duplicate", o.Duplicate}, {"reorder", o.Reorder}, {"corrupt", o.Corrupt}} {
		if !(s.share >= 0 && s.share <= 1) {
			return fmt.Errorf("--%s %v: a share is from 0 to 1; 0.2 is a fifth", s.flag, s.share)
		}
	}
	for _, d := range []struct {
		flag string
		time time.Duration
	}{{"rtt", o.RTT}, {"metadata-after", o.MetadataAfter}} {
		if d.time < 0 {
			return fmt.Errorf("--%s %v: time does not run backwards", d.flag, d.time)
		}
	}
	return o.checkWords()
}
