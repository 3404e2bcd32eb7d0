//go:build linux

package kmsg

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFloodOfWarningsLeavesRoomForTheErrorThatFollows(t *testing.T) {
	for _, unlimited := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var r records
			c := New(&r, Format{Kernel: true, Unlimited: unlimited})
			const all = 10_000
			for i := range all { // as somebody on the network can make us, with another text each time
				c.Warnf("refused by server %d", i)
			}
			c.Errorf("reboot now")
			if len(r.all) > c.burst() || c.burst() > 100 {
				t.Errorf("%d lines at once", len(r.all))
			}
			if got := r.all[len(r.all)-1]; got != "<27>reboot now\n" {
				t.Errorf("the last line is %q", got)
			}
			time.Sleep(period)
			c.Infof("later")
			said := 0
			for _, l := range r.all {
				var n int
				if _, err := fmt.Sscanf(l, "<28>… %d lines", &n); err == nil {
					said += n
					if unlimited && strings.Contains(l, "devkmsg") {
						t.Errorf("it advises what is done already: %s", l)
					}
				} else {
					said++
				}
			}
			if said != all+2 {
				t.Errorf("%d of %d lines accounted for", said, all+2)
			}
		})
	}
}
