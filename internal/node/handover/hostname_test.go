//go:build linux

package handover

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
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

// "localhost" is no machine's name, and is what one without a name is called.
func TestANameIsTakenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		netns.Missing(t, "a hostname of one's own needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread, whose hostname is its own, ends with the test
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		t.Fatal(err)
	}
	if got, err := SetHostname("web-1"); got != "web-1" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := SetHostname("localhost"); err == nil {
		t.Errorf("%q is a name", got)
	}
	if err := UnsetHostname(); err != nil || hostname() != "localhost" {
		t.Errorf("%v; it is called %q", err, hostname())
	}
}
