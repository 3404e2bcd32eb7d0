package identity

import "github.com/nametag-boot/nametag/earlynet"

// A handed network is the paths that a caller hands in. They are the caller's, so
// that there is nothing to keep and nothing to undo, and nothing to say of those
// that are not there.
type handed <-chan *earlynet.Path

func (h handed) Paths() <-chan *earlynet.Path { return h }
func (h handed) Changes() <-chan struct{}     { return nil }
func (h handed) Status() []error              { return nil }
func (h handed) Keep(*earlynet.Path) error    { return nil }
func (h handed) Close() error                 { return nil }
