//go:build !unix

package patience

import "time"

var began = time.Now()

// ownTime is the time that passes: what this thread has had of it is not asked here, and no machine counts as busy.
func ownTime() time.Duration { return time.Since(began) }
