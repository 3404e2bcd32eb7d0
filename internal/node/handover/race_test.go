//go:build linux && race

package handover

// Under the race detector every process sleeps a second before it ends.
const raceEnabled = true
