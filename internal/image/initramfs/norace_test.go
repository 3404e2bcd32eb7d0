//go:build unix && !race

package initramfs

// underRace is whether the race detector looks on.
const underRace = false
