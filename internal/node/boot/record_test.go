//go:build linux

package boot

import (
	"os"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/identity"
)

// In a boot nothing is on /proc when the record is written.
func TestTheRecordTellsOfWhichBootItIsWithoutProc(t *testing.T) {
	fd, err := nowhere("proc")
	if err != nil {
		t.Skip(err)
	}
	if err := os.NewFile(uintptr(fd), "proc").Close(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	if r := recordOf(result{Identity: &identity.Identity{Hostname: "web-1"}}); r.BootID != strings.TrimSpace(string(want)) || r.Hostname != "web-1" {
		t.Errorf("%+v, not of boot %s", r, want)
	}
}
