//go:build linux

package handover

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/internal/node/kmsg"
)

// That a system names itself between the sight of its /proc and our mount cannot be
// made to happen in a boot, so the keeper is asked directly.
func TestSystemNamesItself(t *testing.T) {
	for _, tt := range []struct {
		name   string
		proven bool
		fails  bool
	}{
		{"where nobody can have read the command line before, it is the operator's configuration", true, false},
		{"where somebody may have, the policy decides", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				k := &keeper{
					order:   order{Name: exampleName, Before: raw(hostname() + "-before"), Limits: Limits{Name: time.Hour}.orDefaults()},
					console: kmsg.New(&said, kmsg.Format{Unlimited: true}),
					found:   -1, bound: true, proven: tt.proven,
				}
				newStandby(k)
				start := time.Now() // virtual: our looks take no time
				if err := k.finish(); (err != nil) != tt.fails {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); !tt.fails && took != 30*time.Second {
					t.Errorf("the command line stayed covered for %v", took)
				}
				if !tt.fails && !strings.Contains(said.String(), "its configuration may say so") {
					t.Errorf("said %q", said.String())
				}
			})
		})
	}
}

func TestLimits(t *testing.T) {
	l := Limits{Mount: time.Second, Countdown: -1}.orDefaults()
	if l.Mount != time.Second || l.Countdown != -1 || l.Name != 5*time.Minute || l.Silence == 0 || l.Exec == 0 || l.Strict == 0 || l.Seize == 0 {
		t.Errorf("%+v", l)
	}
}
