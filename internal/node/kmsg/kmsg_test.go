//go:build linux

package kmsg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// records keeps each write apart, as /dev/kmsg does.
type records struct {
	mu  sync.Mutex
	all []string
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, string(p))
	return len(p), nil
}

func (r *records) String() string { return strings.Join(r.all, "") }

func TestForm(t *testing.T) {
	for _, tt := range []struct {
		name   string
		format Format
		level  Level
		text   string
		want   string
	}{
		{"a kernel record carries facility and level", Format{Prefix: "nametag", Kernel: true}, Error, "no name", "<27>nametag: no name\n"},
		{"a step of the boot is level 6", Format{Prefix: "nametag", Kernel: true}, Info, "eth0 up", "<30>nametag: eth0 up\n"},
		{"a plain line has no priority", Format{Prefix: "nametag"}, Info, "eth0 up", "nametag: eth0 up\n"},
		{"no prefix", Format{}, Info, "eth0 up", "eth0 up\n"},
		{"a line feed does not make a second line", Format{}, Info, "a\n<0>b", "a\\n<0>b\n"},
		{"a terminal's escape is not obeyed", Format{}, Info, "a\x1b[2Jb", "a\\x1b[2Jb\n"},
		{"C1 controls neither", Format{}, Info, "a\u009bb", "a\\x9bb\n"},
		{"the direction of writing is not turned", Format{}, Info, "a\u202eb", "a\\u202eb\n"},
		{"what is not UTF-8 is shown byte by byte", Format{}, Info, "a\xff\xfeb", "a\\xff\\xfeb\n"},
		{"printable text stays as it is", Format{}, Info, "Größe → 5µs", "Größe → 5µs\n"},
		{"a tab is a space", Format{}, Info, "a\tb", "a b\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r records
			New(&r, tt.format).Say(tt.level, tt.text)
			if got := r.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLongLines(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 5000), strings.Repeat("…", 700), strings.Repeat("\x00", 1000), strings.Repeat("y", 976)} {
		var r records
		New(&r, Format{Prefix: "nametag", Kernel: true}).Say(Error, text)
		got := r.String()
		if len(r.all) != 1 || len(got) > maxRecord {
			t.Errorf("a line of %d bytes became %d records of %d bytes", len(text), len(r.all), len(got))
		}
		if !strings.HasSuffix(got, "…\n") || !utf8.ValidString(got) {
			t.Errorf("the cut does not show: %q", got[len(got)-20:])
		}
	}
	t.Run("a line that just fits is not cut", func(t *testing.T) {
		var r records
		text := strings.Repeat("x", maxRecord-len("<27>")-1)
		New(&r, Format{Kernel: true}).Say(Error, text)
		if got := r.String(); got != "<27>"+text+"\n" {
			t.Errorf("got %d bytes ending in %q", len(got), got[len(got)-8:])
		}
	})
}

func TestLimit(t *testing.T) {
	t.Run("the kernel never has to drop a line, and an error still finds room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var r records
			c := New(&r, Format{Kernel: true})
			for i := range 50 {
				c.Infof("step %d", i)
			}
			c.Errorf("it went wrong")
			if len(r.all) > burst {
				t.Fatalf("%d records in a period, the kernel takes %d", len(r.all), burst)
			}
			if got := r.String(); !strings.Contains(got, "it went wrong") {
				t.Errorf("the error was left out:\n%s", got)
			}
			if got := r.String(); !strings.Contains(got, "<28>… 43 lines left out") {
				t.Errorf("nothing tells how many lines were left out:\n%s", got)
			}
			time.Sleep(period)
			c.Infof("later")
			if got := r.all[len(r.all)-1]; got != "<30>later\n" {
				t.Errorf("a new period begins with %q", got)
			}
		})
	})
	t.Run("lines left out and lines said add up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var r records
			c := New(&r, Format{Kernel: true})
			const all = 300
			for i := range all {
				c.Warnf("step %d", i)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(period)
			c.Close()
			said := 0
			for _, l := range r.all {
				var n int
				if _, err := fmt.Sscanf(l, "<28>… %d lines", &n); err == nil {
					said += n
				} else {
					said++
				}
			}
			if said != all {
				t.Errorf("%d of %d lines accounted for", said, all)
			}
		})
	})
	t.Run("printk.devkmsg=on lifts it", func(t *testing.T) {
		var r records
		c := New(&r, Format{Kernel: true, Unlimited: true})
		for i := range 50 {
			c.Infof("step %d", i)
		}
		if len(r.all) != 50 {
			t.Errorf("%d records of 50", len(r.all))
		}
	})
}

func TestFolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r records
		c := New(&r, Format{Unlimited: true})
		for range 61 { // twice a second, two errors by turns
			c.Warnf("refused")
			c.Warnf("unreachable")
			time.Sleep(500 * time.Millisecond)
		}
		want := []string{"refused\n", "unreachable\n", "refused (60 times in 30s)\n", "unreachable (60 times in 30s)\n"}
		if got := r.String(); got != strings.Join(want, "") {
			t.Errorf("got\n%s", got)
		}
		for i := range 1000 {
			c.Warnf("error %d", i)
		}
		if len(c.said) > remembered {
			t.Errorf("%d lines are remembered, the bound is %d", len(c.said), remembered)
		}
	})
}

func TestCountdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r records
		c := New(&r, Format{Kernel: true})
		start := time.Now()
		if err := c.Countdown(t.Context(), 95*time.Second, "no name", "reboot"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 95*time.Second {
			t.Errorf("took %v", took)
		}
		want := ""
		for _, left := range []string{"1m35s", "1m0s", "30s", "10s", "5s", "4s", "3s", "2s", "1s"} {
			want += "<27>no name: reboot in " + left + "\n"
		}
		if got := r.String(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Countdown(ctx, time.Hour, "no name", "reboot"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestOpen(t *testing.T) {
	t.Run("without a kernel log the console device is used", func(t *testing.T) {
		dev := t.TempDir()
		if err := os.WriteFile(filepath.Join(dev, "console"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c := open("nametag", dev, false)
		c.Infof("hello")
		spare, format, err := c.Spare()
		if err != nil || format.Kernel {
			t.Fatalf("spare: %v, %+v", err, format)
		}
		spare.Close()
		c.Close()
		if got, _ := os.ReadFile(filepath.Join(dev, "console")); string(got) != "nametag: hello\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the kernel log comes first", func(t *testing.T) {
		dev := t.TempDir()
		for _, name := range []string{"kmsg", "console"} {
			if err := os.WriteFile(filepath.Join(dev, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := open("nametag", dev, false)
		c.Infof("hello")
		c.Close()
		if got, _ := os.ReadFile(filepath.Join(dev, "kmsg")); string(got) != "<30>nametag: hello\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("with neither, standard error, which is not closed", func(t *testing.T) {
		c := open("nametag", filepath.Join(t.TempDir(), "none"), false)
		if c.w != os.Stderr || c.Close() != nil {
			t.Errorf("got %T", c.w)
		}
		if _, err := os.Stderr.Stat(); err != nil {
			t.Errorf("standard error was closed: %v", err)
		}
	})
	t.Run("a nil console says nothing", func(t *testing.T) {
		var c *Console
		c.Errorf("x")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
