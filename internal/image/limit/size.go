package limit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes that a flag takes and shows: 4G, 512M, 100K or 1048576, in powers of 1024. It implements
// pflag.Value.
type Size int64

func (s *Size) String() string {
	for _, unit := range units {
		if n := int64(*s); n >= 1<<unit.shift && n&(1<<unit.shift-1) == 0 {
			return strconv.FormatInt(n>>unit.shift, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type is what a help calls such a value.
func (s *Size) Type() string { return "size" }

// Set reads one. "4G", "4GiB" and "4294967296" are the same.
func (s *Size) Set(text string) error {
	digits, shift := strings.ToUpper(strings.TrimSpace(text)), 0
	digits = strings.TrimSuffix(strings.TrimSuffix(digits, "B"), "I")
	for _, unit := range units {
		if rest, ok := strings.CutSuffix(digits, unit.name); ok {
			digits, shift = rest, unit.shift
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return fmt.Errorf("%q is no size such as 512M or 8G", text)
	}
	*s = Size(n << shift)
	return nil
}

// Count is a number that a flag takes, at least one. It implements pflag.Value.
type Count int64

func (c *Count) String() string { return strconv.FormatInt(int64(*c), 10) }

// Type is what a help calls such a value.
func (c *Count) Type() string { return "number" }

// Set reads one.
func (c *Count) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > 1<<40 {
		return fmt.Errorf("%q is no number of things from 1 on", text)
	}
	*c = Count(n)
	return nil
}

// Duration is a time that a flag takes, more than none. It implements pflag.Value.
type Duration time.Duration

func (d *Duration) String() string { return time.Duration(*d).String() }

// Type is what a help calls such a value.
func (d *Duration) Type() string { return "duration" }

// Set reads one.
func (d *Duration) Set(text string) error {
	t, err := time.ParseDuration(text)
	if err != nil || t <= 0 {
		return fmt.Errorf("%q is no time such as 10m", text)
	}
	*d = Duration(t)
	return nil
}

// words is the size in a sentence.
func (s *Size) words() string {
	text := s.String()
	if last := text[len(text)-1]; last >= 'A' {
		return text[:len(text)-1] + " " + string(last) + "iB"
	}
	return text + " bytes"
}

var units = []struct {
	name  string
	shift int
}{{"T", 40}, {"G", 30}, {"M", 20}, {"K", 10}}
