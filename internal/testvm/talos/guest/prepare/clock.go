//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos/guest/standin"
)

// clockName is what tells the child that sets the clock from the first process.
const clockName = "standin-clock"

// startClock starts the child where the kernel command line asks for it.
func startClock() error {
	if standin.FromEnvironment()[standin.Clock] == "" {
		return nil
	}
	// With the console as standard streams: Go opens /dev/null for those that are missing, and there is none yet.
	_, err := os.StartProcess("/prepare", []string{clockName}, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	return err
}

// clock makes the wall clock jump as often as it was told.
func clock(log *report.Writer) {
	n, err := strconv.Atoi(standin.FromEnvironment()[standin.Clock])
	if err != nil {
		standin.Die(log, fmt.Errorf("%s: %w", standin.Clock, err))
	}
	for i := range n {
		to := time.Date([]int{1970, 2126, 2000, 2038}[i%4], 1, 1, 0, 0, 0, 0, time.UTC).Add(report.Now())
		// The kernel takes no time that is before its own start (kernel/time/timekeeping.c, do_settimeofday64): in 1970 the
		// clock can only show how long the machine runs.
		ts := unix.NsecToTimespec(to.Add(time.Second).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			standin.Die(log, fmt.Errorf("setting the clock to %s: %w", to, err))
		}
		log.Write(report.Event{Kind: report.Clock, Name: to.Format(time.DateTime)})
		time.Sleep(100 * time.Millisecond)
	}
}
