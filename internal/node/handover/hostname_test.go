//go:build linux

package handover

import (
	"errors"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/identity"
)

// What another process says is looked at before it takes effect.
func TestWhatIsNoHostNameDoesNotTakeEffect(t *testing.T) {
	before := hostname()
	for _, name := range []string{"", "a b", "a\nb", "-a", "a..b", "a\x00b", strings.Repeat("a", 64)} {
		var bad *identity.NameError
		if got, err := SetHostname(name); !errors.As(err, &bad) || got != "" {
			t.Errorf("%q: set %q, %v", name, got, err)
		}
		if line, err := amend("quiet\n", name); !errors.As(err, &bad) {
			t.Errorf("%q: on the line %q, %v", name, line, err)
		}
	}
	if after := hostname(); after != before {
		t.Errorf("the hostname is %q, was %q", after, before)
	}
}
