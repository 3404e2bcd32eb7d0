package cloud

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// newAlarm is a timerfd: it wakes the goroutine through the runtime's poller within some ten microseconds, where a timer
// of the runtime is late by up to a millisecond because epoll_wait counts in milliseconds.
func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &timerfd{fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}, nil
}

type timerfd struct {
	fd   int // set and close are never called at once, so it is valid in set
	file *os.File
}

func (t *timerfd) set(d time.Duration) {
	// Zero would disarm it.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(d, 1).Nanoseconds())}
	_ = unix.TimerfdSettime(t.fd, 0, &spec, nil)
}

func (t *timerfd) wait() bool {
	var ticks [8]byte
	_, err := t.file.Read(ticks[:])
	return err == nil
}

func (t *timerfd) close() { _ = t.file.Close() }
