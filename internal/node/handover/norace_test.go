//go:build linux && !race

package handover

const raceEnabled = false
