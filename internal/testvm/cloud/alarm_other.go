//go:build !linux

package cloud

import "time"

// newAlarm is a timer of the runtime.
func newAlarm() (alarm, error) {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &timer{t: t, done: make(chan struct{})}, nil
}

type timer struct {
	t    *time.Timer
	done chan struct{}
}

func (t *timer) set(d time.Duration) { t.t.Reset(max(d, 1)) }

func (t *timer) wait() bool {
	select {
	case <-t.t.C:
		return true
	case <-t.done:
		return false
	}
}

func (t *timer) close() {
	t.t.Stop()
	close(t.done)
}
