//go:build unix && race

package initramfs

// underRace is whether the race detector looks on: then a sync.Pool forgets a part of what it is given, at random.
const underRace = true
