//go:build linux

package chaos_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/chaos"
	"github.com/nametag-boot/nametag/procfs"
)

// Policies are cheap: many more of them than of the scenarios that they are played in.
func TestRandomArgumentsAreUnderstood(t *testing.T) {
	for seed := range uint64(20000) {
		d := chaos.NewDice(seed)
		argument, means := d.Argument(chaos.Wishes{
			Wait: time.Duration(d.IntN(3)) * d.Between(time.Millisecond, time.Hour).Truncate(time.Millisecond),
			NICs: []string{"eth0", "en*", "86:00:00:aa:bb:cc"},
		})
		line := d.Line(argument, d.Later())
		got, err := procfs.ParseString(line)
		if err != nil || !got.Present || !chaos.Same(got.Policy, means) {
			t.Errorf("seed %d: %q: got %+v, %v; want %+v", seed, line, got, err, means)
		}
		line = d.Line(d.Malformed())
		got, err = procfs.ParseString(line)
		var mistake *procfs.Error
		if !errors.As(err, &mistake) || !got.Present || !chaos.Same(got.Policy, procfs.Default()) {
			t.Errorf("seed %d: %q: got %+v, %v; want an error and the default policy", seed, line, got, err)
		}
	}
}
