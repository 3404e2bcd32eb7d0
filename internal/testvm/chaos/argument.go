//go:build linux

package chaos

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/procfs"
)

// Wishes are what a random policy is made of. What is empty is left to chance, or out.
type Wishes struct {
	// Wait is the bound, in whole milliseconds; 0: the argument's default or for ever.
	Wait time.Duration
	// NICs are what nic= may say. Some of them are chosen; all, where Every says so.
	NICs  []string
	Every bool
	// Thens are what then= may say; empty: all that there are.
	Thens []procfs.Then
}

// Argument writes a random policy the way that a person might, and says what it must be understood as.
func (d *Dice) Argument(w Wishes) (argument string, means procfs.Policy) {
	means = procfs.Policy{Mode: procfs.Bounded, Wait: w.Wait}
	var value string
	switch {
	case w.Wait > 0:
		value = Pick(d, w.Wait.String(), fmt.Sprintf("%dms", w.Wait.Milliseconds()), fmt.Sprintf("%.3fs", w.Wait.Seconds()), fmt.Sprintf("0h%dms", w.Wait.Milliseconds()))
	case d.Chance(0.5):
		means = procfs.Policy{Mode: procfs.Forever}
		value = "forever"
	default:
		means = procfs.Default()
		value = Pick(d, "", "1", "on", "true", "yes")
	}
	var items []string
	if len(w.Thens) == 0 {
		w.Thens = []procfs.Then{procfs.Reboot, procfs.PowerOff, procfs.Halt, procfs.Continue}
	}
	means.Then = Pick(d, w.Thens...)
	if means.Then != procfs.Reboot || d.Chance(0.3) {
		items = append(items, "then="+means.Then.String())
	}
	if d.Chance(0.5) {
		means.Keep = procfs.KeepNetwork
	}
	if means.Keep != procfs.KeepNone || d.Chance(0.2) {
		items = append(items, "keep="+means.Keep.String())
	}
	for _, nic := range w.NICs {
		if w.Every || d.Chance(0.5) {
			means.NICs = append(means.NICs, nic)
		}
	}
	for _, method := range []string{"linklocal", "dhcp", "ipv6"} {
		if d.Chance(0.15) {
			means.Via = append(means.Via, method)
		}
	}
	for _, nic := range means.NICs {
		if mac, err := net.ParseMAC(nic); err == nil && d.Chance(0.5) {
			nic = Pick(d, strings.ToUpper(mac.String()), strings.ReplaceAll(mac.String(), ":", "-"))
		}
		items = append(items, "nic="+nic)
	}
	for _, method := range means.Via {
		items = append(items, "via="+method)
	}
	if len(items) > 0 && d.Chance(0.2) {
		items = append(items, Pick(d, items...)) // what is said twice is said once
	}
	d.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	argument = procfs.Parameter + "=" + strings.Join(append([]string{value}, items...), ",")
	if value == "" && len(items) == 0 && d.Chance(0.5) {
		argument = procfs.Parameter
	}
	return argument, means
}

// Malformed writes an argument with a mistake. It means the default policy.
func (d *Dice) Malformed() string {
	return procfs.Parameter + Pick(d, "=90", "=5", "=-5s", "=0.5", "=1m,", "=1m,,then=halt", "=1m,then=restart", "=1m,then", "=1m,keep=all",
		"=1m,via=wifi", "=1m,nic=", "=1m,nic=[", "=1m,foo=bar", "=1m,then=halt,then=reboot", `="1m"`, "=10ns", "=9000h", "=never", "=,=", "=on,off", "=then=halt",
		"s=1m", "=\x01", "=none")
}

// Later is an argument to put behind that of [Dice.Argument]: the first one counts.
func (d *Dice) Later() string {
	return procfs.Parameter + Pick(d, "=off", "=1ms,then=poweroff", "=90", "=forever")
}

// Line is a kernel command line with arguments on it, among others.
func (d *Dice) Line(arguments ...string) string {
	before := []string{"console=ttyS0", "quiet", "panic=-1", "-- foo", "ip=dhcp", "talos.platform=hcloud", "talos.hostname="}
	d.Shuffle(len(before), func(i, j int) { before[i], before[j] = before[j], before[i] })
	words := slices.Concat(before[:d.IntN(4)], arguments)
	if d.Chance(0.3) {
		words = append(words, "init_on_alloc=1")
	}
	return strings.Join(words, Pick(d, " ", "  ", "\t"))
}

// Same reports whether two policies ask for the same, whatever the order of names.
func Same(a, b procfs.Policy) bool {
	set := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return a.Mode == b.Mode && (a.Mode != procfs.Bounded || a.Wait == b.Wait) && a.Then == b.Then && a.Keep == b.Keep &&
		slices.Equal(set(a.NICs), set(b.NICs)) && slices.Equal(set(a.Via), set(b.Via))
}
