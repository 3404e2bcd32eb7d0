//go:build linux

package apply

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/internal/node/lasting"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/wait"
	"github.com/nametag-boot/nametag/procfs"
)

type work = func(context.Context, Order) error

// dies is work that dies so often, each time after a while, and then does it.
func (h *host) dies(times int, after time.Duration) (w work, begun *int) {
	begun = new(int)
	return func(ctx context.Context, o Order) error {
		if *begun++; *begun <= times {
			if !wait.Sleep(ctx, after) {
				return context.Cause(ctx)
			}
			return &DiedError{How: errors.New("signal: killed")}
		}
		return h.config.By(o).Do(ctx)
	}, begun
}

func (h *host) remembers(name string) {
	h.t.Helper()
	n := memory.Name{Hostname: name, InstanceID: "42", Since: time.Now()}
	if err := n.Remember(string(h.config.Root)); err != nil {
		h.t.Fatal(err)
	}
}

func TestAProcessOfItsOwnMayDie(t *testing.T) {
	for _, tt := range []struct {
		name  string
		line  string
		knows string // the node
		times int    // that it dies
		lives time.Duration

		kernel string // the hostname afterwards
		begun  int
		ending []procfs.Then
		after  time.Duration
	}{
		{"it does not", "nametag.wait=1m", "", 0, 0, "web-1", 1, nil, 0},
		{"a node that knows its name goes on under it", "nametag.wait=1m", "web-0", 100, 0, "web-0", 1, nil, 0},
		{"one whose memory is not to count asks again", "nametag.wait=1m,known=off", "web-0", 3, 0, "web-1", 4, nil, 7 * time.Second},
		{"one that may have been renamed asks again, where that is to stop it", "nametag.wait=1m,rename=stop", "web-1", 3, 0, "web-1", 4, nil, 7 * time.Second},
		{"and is stopped, where it was", "nametag.wait=1m,rename=stop", "web-0", 1, 0, "", 2, []procfs.Then{procfs.Reboot}, time.Minute},
		{"however late", "nametag.wait=1m,rename=stop", "web-0", 1, 20 * time.Second, "", 2, []procfs.Then{procfs.Reboot}, time.Minute},
		{"at the last moment", "nametag.wait=1m,rename=stop", "web-0", 1, 58900 * time.Millisecond, "", 2, []procfs.Then{procfs.Reboot}, time.Minute},
		{"one that knows none asks again", "nametag.wait=1m", "", 2, 0, "web-1", 3, nil, 3 * time.Second},
		{"until the time is up", "nametag.wait=1m", "", 100, 0, "", 9, []procfs.Then{procfs.Reboot}, time.Minute},
		{"which counts from the beginning", "nametag.wait=1m", "", 100, 40 * time.Second, "", 2, []procfs.Then{procfs.Reboot}, 81 * time.Second},
		{"for ever, if the policy says so", "nametag.wait=forever", "", 100, 0, "web-1", 101, nil, 15*time.Second + 96*10*time.Second},
		{"it does not come to an end", "nametag.wait=1m", "", 100, time.Hour, "", 1, []procfs.Then{procfs.Reboot}, 3 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t, tt.line)
				if tt.knows != "" {
					h.remembers(tt.knows)
				}
				work, begun := h.dies(tt.times, tt.lives)
				since := time.Now()
				err := h.config.Apart(t.Context(), work)
				if after := time.Since(since); h.kernel != tt.kernel || *begun != tt.begun || !slices.Equal(h.enforced, tt.ending) || after != tt.after {
					t.Errorf("its hostname is %q after %v and %d tries, then %v: %v", h.kernel, after, *begun, h.enforced, err)
				}
				if (err == nil) != (tt.ending == nil) || tt.times > 0 && !h.heard("failed") {
					t.Errorf("%v, and it was told %v", err, h.said)
				}
			})
		})
	}
}

func TestWhereNobodyIsAskedThereIsNoProcessOfItsOwn(t *testing.T) {
	for name, prepare := range map[string]func(h *host){
		"an operator's name":    func(h *host) { h.write("etc/hostname", "by-hand\n") },
		"a record of this boot": func(h *host) { _ = h.config.Do(h.t.Context()) },
		"a crash dump":          func(h *host) { h.config.Capture = true },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "nametag.wait=1m")
			prepare(h)
			if err := h.config.Apart(t.Context(), func(context.Context, Order) error { return errors.New("there is one") }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestANameThatCannotBeReadIsNoReasonToDoWithoutTheProcess(t *testing.T) {
	h := newHost(t, "nametag.wait=1m")
	if err := os.Mkdir(filepath.Join(string(h.config.Root), lasting.File), 0o755); err != nil {
		t.Fatal(err)
	}
	begun := errors.New("there is one")
	if err := h.config.Apart(t.Context(), func(context.Context, Order) error { return begun }); !errors.Is(err, begun) {
		t.Errorf("%v, %v", err, h.said)
	}
}

func TestAProcessThatDiesWhenTheNameIsInEffectHasDoneIt(t *testing.T) {
	h := newHost(t, "nametag.wait=1m,known=off")
	err := h.config.Apart(t.Context(), func(ctx context.Context, o Order) error {
		if err := h.config.By(o).Do(ctx); err != nil {
			t.Error(err)
		}
		return &DiedError{How: errors.New("signal: killed")}
	})
	if err != nil || h.asked != 1 || h.kernel != "web-1" || h.file() != "web-1" {
		t.Errorf("%v, asked %d times, kernel %q, file %q", err, h.asked, h.kernel, h.file())
	}
}

func TestWithHaltTheProcessMayStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "nametag.wait=1m,then=halt")
		ctx, stop := context.WithTimeout(t.Context(), 24*time.Hour)
		defer stop()
		err := h.config.Apart(ctx, func(ctx context.Context, _ Order) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() == nil || len(h.said) > 0 {
			t.Errorf("%v, %v", err, h.said)
		}
	})
}

func TestTheTimeThatAnotherProcessHasWaitedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "nametag.wait=1m")
		h.config.Find, h.config.Began = h.silent, time.Now().Add(-40*time.Second)
		since := time.Now()
		if err := h.do(t.Context()); err == nil || time.Since(since) != 20*time.Second {
			t.Errorf("%v after %v", err, time.Since(since))
		}
	})
}

func TestAnotherErrorOfTheProcessIsPassedOn(t *testing.T) {
	h := newHost(t, "nametag.wait=1m")
	said := errors.New("no name")
	if err := h.config.Apart(t.Context(), func(context.Context, Order) error { return said }); !errors.Is(err, said) || len(h.said) > 0 {
		t.Errorf("%v; %v", err, h.said)
	}
}

func TestWhoStopsItStopsThePauseToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "nametag.wait=forever")
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		work, _ := h.dies(100, 0)
		since := time.Now()
		if err := h.config.Apart(ctx, work); !errors.Is(err, context.DeadlineExceeded) || len(h.enforced) > 0 || time.Since(since) != 20*time.Second {
			t.Errorf("%v after %v, then %v", err, time.Since(since), h.enforced)
		}
	})
}
