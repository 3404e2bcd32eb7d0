package patience

import (
	"runtime"
	"time"
)

// Bound is how long a test waits before it says that something hangs which takes d on a machine that has nothing else to
// do: many times d, and more where this machine is busy now. It is for the end of waiting alone. What a program does
// within its time is tested in virtual time, or by what the program itself says.
func Bound(d time.Duration) time.Duration {
	return max(20*time.Second, time.Duration(float64(10*d)*stretch()))
}

// stretch is by how much the work of other processes stretches a short piece of work of this one now: 1 on an idle machine.
func stretch() float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const work = 5 * time.Millisecond
	began, cpu := time.Now(), ownTime()
	for ownTime()-cpu < work {
		if time.Since(began) > 2*time.Second {
			break
		}
	}
	return max(1, float64(time.Since(began))/float64(work))
}
