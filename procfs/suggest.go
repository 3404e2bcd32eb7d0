package procfs

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// guessWait makes sense of a duration as people write it: 90, 2min, 1h30, 1d,
// 2M, -5m. It returns the seconds that were likely meant, the same as an
// argument ("" where there is no sensible one), and whether s is made of numbers
// and units at all.
func guessWait(s string) (seconds float64, argument string, ok bool) {
	if len(s) > 64 {
		return 0, "", false
	}
	rest := strings.ToLower(strings.TrimLeft(s, "+-"))
	if rest == "" {
		return 0, "", false
	}
	smaller := "s" // what a number without a unit counts
	for rest != "" {
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		number, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil && number == 0 { // out of range is +Inf, and a number
			return 0, "", false
		}
		rest = rest[n:]
		n = strings.IndexAny(rest, "0123456789.")
		if n < 0 {
			n = len(rest)
		}
		unit := rest[:n]
		rest = rest[n:]
		if unit == "" {
			unit = smaller
		}
		switch unit {
		case "ms", "msec", "msecs", "millisecond", "milliseconds":
			seconds += number / 1000
		case "s", "sec", "secs", "second", "seconds":
			seconds += number
		case "m", "min", "mins", "minute", "minutes":
			seconds += number * 60
			smaller = "s"
		case "h", "hr", "hrs", "hour", "hours":
			seconds += number * 3600
			smaller = "m"
		case "d", "day", "days":
			seconds += number * 86400
			smaller = "h"
		default:
			return 0, "", false
		}
	}
	if seconds >= shortestWait.Seconds() && seconds <= longestWait.Seconds() {
		argument = formatWait(time.Duration(seconds * float64(time.Second)).Round(time.Millisecond))
		if bare := strings.TrimLeft(s, "+-"); strings.Trim(bare, "0123456789") == "" {
			argument = bare + "s" // 90 is to become 90s, not 1m30s
		}
	}
	return seconds, argument, true
}

// keys are the keys of the argument.
func keys() []string { return []string{"then", "nic", "via", "keep", "known", "rename", "id"} }

// guessItem finds the key for a value that stands alone: halt → then=halt.
func guessItem(item string) string {
	for _, k := range []struct {
		key   string
		words []string
	}{{"then", thens()}, {"via", vias()}, {"keep", keeps()}, {"rename", renames()}, {"id", ids()}, {"known", []string{"strict"}}} {
		if slices.Contains(k.words, item) {
			return k.key + "=" + item
		}
	}
	signed := make([]string, 0, len(keys()))
	for _, k := range keys() {
		signed = append(signed, k+"=")
	}
	return nearest(item, signed)
}

// guessKey puts the nearest key before value.
func guessKey(key, value string) string {
	if k := nearest(key, keys()); k != "" {
		return k + "=" + value
	}
	return ""
}

// nearest returns the candidate that s is most likely a misspelling of, or "".
func nearest(s string, candidates []string) string {
	best, found := 0, ""
	for _, c := range candidates {
		if len(s) > len(c)+8 {
			continue
		}
		limit := max(1, len(c)/3)
		if d := distance(strings.ToLower(s), c); d <= limit && (found == "" || d < best) {
			best, found = d, c
		}
	}
	return found
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
