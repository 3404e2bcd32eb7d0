//go:build linux

package kmod

import "sync/atomic"

// progress is what the worker is at, for the message of an interrupted Load.
type progress struct{ at atomic.Value }

func (p *progress) set(at string) { p.at.Store(at) }

func (p *progress) get() string {
	at, _ := p.at.Load().(string)
	return at
}
