//go:build linux

package qemu

import (
	"testing"
	"time"
)

func TestALineOfTheConsole(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Line
	}{
		{"with the kernel's timestamp", "[    1.541455] Run /init", Line{Guest: 1541455 * time.Microsecond, Text: "Run /init"}},
		{"with one of days", "[86400.000001] x", Line{Guest: 24*time.Hour + time.Microsecond, Text: "x"}},
		{"of a program that writes by itself", "machined: setting hostname", Line{Guest: -1, Text: "machined: setting hostname"}},
		{"with something in brackets that is no time", "[WARNING] x", Line{Guest: -1, Text: "[WARNING] x"}},
		{"with nothing but the timestamp", "[    0.000000]", Line{Guest: 0, Text: ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Host = time.Second
			if got := parseLine(time.Second, c.text); got != c.want {
				t.Errorf("%+v, not %+v", got, c.want)
			}
		})
	}
}
