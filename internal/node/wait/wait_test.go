//go:build linux

package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ends  time.Duration // of the context; 0: never
		slept bool
		took  time.Duration
	}{
		{"undisturbed", 0, true, time.Minute},
		{"the context ends before", time.Second, false, time.Second},
		{"the context has ended", -1, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.ends != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.ends)
					defer cancel()
				}
				began := time.Now() // virtual
				if slept := Sleep(ctx, time.Minute); slept != tt.slept || time.Since(began) != tt.took {
					t.Errorf("slept: %t, for %v", slept, time.Since(began))
				}
			})
		})
	}
}

func TestFor(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration // something comes
		came  bool
		took  time.Duration
	}{
		{"it is there", 0, true, 0},
		{"it comes in time", time.Second, true, time.Second},
		{"it comes too late", time.Hour, false, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ch := make(chan int, 1)
				if tt.after == 0 {
					ch <- 7
				} else {
					time.AfterFunc(tt.after, func() { ch <- 7 })
				}
				began := time.Now()
				v, came := For(ch, time.Minute)
				if came != tt.came || came != (v == 7) || time.Since(began) != tt.took {
					t.Errorf("%d came: %t, after %v", v, came, time.Since(began))
				}
			})
		})
	}
	t.Run("the end of a channel is as good", func(t *testing.T) {
		ch := make(chan struct{})
		close(ch)
		if _, came := For(ch, time.Hour); !came {
			t.Error("it did not come")
		}
	})
}

// A select takes either of two that are ready; neither of these waits may.
func TestWhatIsThereCountsThoughTheTimeIsUp(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	ch := make(chan int, 1)
	for range 1000 {
		if Sleep(ended, 0) {
			t.Fatal("it slept, though its context had ended")
		}
		ch <- 7
		if v, came := For(ch, 0); !came || v != 7 {
			t.Fatal("what was there did not come")
		}
	}
}
