//go:build linux

package systems

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// tally counts the boots of all tests of this process: of each scenario how many, and how many of them were right.
var tally counted

type counted struct {
	mu   sync.Mutex
	list []*row // in the order of their first boot
}

type row struct {
	name         string
	right, boots int
	took         time.Duration // of all
}

// boot notes one boot, which is right where it ends the test in no way and fails nothing.
func (c *counted) boot(t *testing.T, judged func() *qemu.Verdict) *qemu.Verdict {
	t.Helper()
	before, right := t.Failed(), false
	var v *qemu.Verdict
	defer func() { // also where the test ends in it
		c.mu.Lock()
		defer c.mu.Unlock()
		r := c.row(t.Name())
		r.boots++
		if v != nil {
			r.took += v.Took
		}
		if right {
			r.right++
		}
	}()
	v = judged()
	right = before || !t.Failed()
	return v
}

func (c *counted) row(name string) *row {
	name = strings.TrimPrefix(name, "TestRealSystems/")
	if i := slices.IndexFunc(c.list, func(r *row) bool { return r.name == name }); i >= 0 {
		return c.list[i]
	}
	r := &row{name: name}
	c.list = append(c.list, r)
	return r
}

// print says it all; nothing where nothing booted.
func (c *counted) print(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "scenario\tright\tof\tseconds each\t")
	var all row
	for _, r := range c.list {
		wrong := ""
		if r.right < r.boots {
			wrong = "WRONG"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%.0f\t%s\n", r.name, r.right, r.boots, r.took.Seconds()/float64(r.boots), wrong)
		all.right, all.boots, all.took = all.right+r.right, all.boots+r.boots, all.took+r.took
	}
	fmt.Fprintf(table, "all\t%d\t%d\t%.0f\t\n", all.right, all.boots, all.took.Seconds()/float64(all.boots))
	_ = table.Flush()
}

func TestTheTallyCountsWhatWasRight(t *testing.T) {
	var c counted
	c.boot(t, func() *qemu.Verdict { return nil })
	c.boot(t, func() *qemu.Verdict { return nil })
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.boot(t, func() *qemu.Verdict { runtime.Goexit(); return nil }) // as t.Fatal does
	}()
	<-done
	var b strings.Builder
	c.print(&b)
	for _, want := range []string{t.Name() + "  2      3   0             WRONG\n", "all                            "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}
