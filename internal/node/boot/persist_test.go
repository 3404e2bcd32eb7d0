//go:build linux

package boot

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
)

func TestANetworkThatCannotBeOpenedIsTriedAgainUntilTheTimeIsUp(t *testing.T) {
	for _, scenario := range []struct {
		name    string
		answers []error // the last one again and again
		tries   int
		err     error
	}{
		{"it can be at last", []error{unix.EPERM, unix.EAFNOSUPPORT, nil}, 3, nil},
		{"it never can be", []error{unix.EPERM}, 10, unix.EPERM},
		{"a search that came to its end is not repeated", []error{&identity.TimeoutError{Cause: context.DeadlineExceeded}}, 1, context.DeadlineExceeded},
		{"nor one on a machine of another cloud", []error{&identity.NotPresentError{}}, 1, &identity.NotPresentError{}},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				console := new(bytes.Buffer)
				w := worker{console: kmsg.New(console, kmsg.Format{Unlimited: true})}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second-time.Millisecond)
				defer cancel()
				tries := 0
				_, err := w.persist(ctx, time.Second, func() (*identity.Identity, error) {
					err := scenario.answers[min(tries, len(scenario.answers)-1)]
					tries++
					return nil, err
				})
				var elsewhere *identity.NotPresentError
				if !errors.Is(err, scenario.err) && !errors.As(scenario.err, &elsewhere) || tries != scenario.tries {
					t.Errorf("%v after %d tries", err, tries)
				}
				if strings.Contains(console.String(), "trying again") != (tries > 1) {
					t.Errorf("the console says %q", console)
				}
			})
		})
	}
}
