//go:build linux

package kmod

// match reports whether s matches a pattern of modules.alias, as fnmatch(3) with
// no flags does it, and with - and _ alike outside of brackets, as modprobe has
// it (alias_normalize, libkmod/libkmod-util.c). Unlike in path.Match a star
// matches a slash, and a bracket that does not close stands for itself.
//
// It takes time in proportion to the product of the lengths at worst.
func match[P string | []byte](pattern P, s string) bool {
	p, i := 0, 0
	star, from := -1, 0 // where to go on after a mismatch: one byte more for the last star
	for i < len(s) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, from = p, i
				p++
				continue
			}
			if n := matchOne(pattern[p:], s[i]); n > 0 {
				p += n
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, i = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one byte with the first element of the pattern and returns
// the length of that element, or 0 if it does not match.
func matchOne[P string | []byte](pattern P, c byte) int {
	switch pattern[0] {
	case '?':
		return 1
	case '[':
		if n, ok := matchSet(pattern, c); n > 0 {
			if ok {
				return n
			}
			return 0
		}
	case '\\':
		if len(pattern) > 1 {
			if pattern[1] == c {
				return 2
			}
			return 0
		}
	}
	if dash(pattern[0]) == dash(c) {
		return 1
	}
	return 0
}

func dash(c byte) byte {
	if c == '-' {
		return '_'
	}
	return c
}

// matchSet matches c with the set that the pattern begins with, and returns the
// set's length, or 0 if it is none.
func matchSet[P string | []byte](pattern P, c byte) (n int, ok bool) {
	i, negated, found := 1, false, false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		negated = true
		i++
	}
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return i + 1, found != negated
		}
		low := pattern[i]
		i++
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			high = pattern[i+1]
			i += 2
		}
		if low <= c && c <= high {
			found = true
		}
	}
	return 0, false
}
