//go:build linux

package handover

import (
	"os"
	"strings"
	"testing"
)

func TestAProgramOfGosIsKnownByItsNote(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if !hasGoNote(self) {
		t.Error("this program is not known")
	}
	sh, err := os.Open("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	defer sh.Close()
	if hasGoNote(sh) {
		t.Error("a shell is taken for one")
	}
	for _, odd := range []string{"", "\x7fELF", "\x7fELF\x02" + strings.Repeat("\xff", 200), strings.Repeat("\x00", 4096)} {
		if hasGoNote(strings.NewReader(odd)) {
			t.Errorf("%q is taken for one", odd)
		}
	}
}
