//go:build linux

package boot

import (
	"os"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/node/remedy"
)

func TestNextInit(t *testing.T) {
	for _, scenario := range []struct {
		name       string
		next       next
		path, argv string
	}{
		{"run by rdinit=", next{self: "/usr/lib/firmware/nametag/nametag"}, "/init", "/init"},
		{"run as /init", next{self: "/init"}, "/init.next", "/init"},
		{"run as /init, and the original is back", next{self: "/init", back: true}, "/init", "/init"},
		{"another one is asked for", next{self: "/init", asked: "/sbin/init"}, "/sbin/init", "/sbin/init"},
	} {
		if path, name := scenario.next.path(), scenario.next.name(); path != scenario.path || name != scenario.argv {
			t.Errorf("%s: the next init is %s as %s, want %s as %s", scenario.name, path, name, scenario.path, scenario.argv)
		}
	}
}

func TestTheNextInitIsCheckedBeforeAnybodyWaits(t *testing.T) {
	us, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []struct{ name, next, says string }{
		{"it is not there", "/nowhere/init", "there is no next init"},
		{"it is a folder", "/proc", "not executable"},
		{"it is no program", "/proc/version", "not executable"},
		{"it is nametag itself", "/proc/self/exe", "nametag itself"},
	} {
		if err := (&next{us: us, asked: scenario.next}).check(); err == nil || !strings.Contains(err.Error(), scenario.says) || !strings.HasSuffix(err.Error(), remedy.NextInit.See()) {
			t.Errorf("%s: %v", scenario.name, err)
		}
	}
	if err := (&next{us: us, asked: "/bin/sh"}).check(); err != nil {
		t.Errorf("a program: %v", err)
	}
}
