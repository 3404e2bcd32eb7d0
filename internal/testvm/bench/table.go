//go:build linux

package main

import (
	_ "embed"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// What the page says before the figures, and how they come about.
var (
	//go:embed preface.md
	preface string
	//go:embed method.md
	method string
)

// markdown is the report.
func markdown(f *figures) string {
	b := new(strings.Builder)
	b.WriteString(preface + "\n")
	fmt.Fprintf(b, "Measured on %s: %s\n", f.Machine.Date, f.machine())
	if f.Quick {
		b.WriteString("\n**A quick look (`-quick`): few runs; not figures to compare by.**\n")
	}
	b.WriteString("\n## What is promised\n\n")
	promised(b, f)
	b.WriteString("\n## In short\n\nMedian time to the name in ms, nothing lost.\n\n")
	inShort(b, f)
	fmt.Fprintf(b, "\n"+method, bound)

	startTable(b, f)
	b.WriteString("\n## The clients\n\nPeak memory is that of the largest process; the size that of a client's own programs, without shell, ip, interpreter\nand shared libraries.\n\n")
	b.WriteString("| client | peak RSS MiB | size MiB | as zstd MiB | |\n| --- | ---: | ---: | ---: | --- |\n")
	for _, c := range f.Clients {
		note := c.Note
		if c.Missing != "" {
			note = strings.TrimPrefix(note+"; **not measured:** "+c.Missing, "; ")
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", c.Name, mib(c.Peak), mib(c.Size), mib(c.Packed), note)
	}

	b.WriteString("\n## All figures\n\nTimes in ms.\n")
	b.WriteString(tables(f))
	return b.String()
}

// tables are all figures of all series.
func tables(f *figures) string {
	b := new(strings.Builder)
	for _, s := range f.Series {
		table(b, s)
	}
	return b.String()
}

// summary is what a terminal gets.
func summary(f *figures) string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "%s\n\n", f.machine())
	inShort(b, f)
	b.WriteString("\n")
	promised(b, f)
	return b.String()
}

// machine is one line about where the figures come from.
func (f *figures) machine() string {
	m := f.Machine
	least, most := "", ""
	for _, s := range f.Series {
		if least == "" || s.Load < least && len(s.Load) <= len(least) || len(s.Load) < len(least) {
			least = s.Load
		}
		if most == "" || s.Load > most && len(s.Load) >= len(most) || len(s.Load) > len(most) {
			most = s.Load
		}
	}
	return fmt.Sprintf("%s, %s, %s, %d cores, %s; in %s, with a load average between %s and %s.", m.System, m.Kernel, m.Processor, m.Cores, m.Go, m.Took, least, most)
}

func promised(b *strings.Builder, f *figures) {
	b.WriteString("| must hold | measured | |\n| --- | --- | --- |\n")
	for _, p := range promises(f) {
		verdict := "**not held**"
		if p.held {
			verdict = "held"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", p.what, p.measured, verdict)
	}
}

// inShort is the table of medians without loss.
func inShort(b *strings.Builder, f *figures) {
	var columns []series
	for _, shape := range []cloud.Shape{cloud.Public, cloud.Private} {
		for _, rtt := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
			if s, ok := f.series(shape, rtt, 0); ok {
				columns = append(columns, s)
			}
		}
	}
	b.WriteString("| client |")
	for _, s := range columns {
		fmt.Fprintf(b, " %s, %g ms |", s.Shape, s.RTT)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(columns)) + "\n")
	for _, c := range f.Clients {
		if c.Missing != "" {
			continue
		}
		fmt.Fprintf(b, "| %s |", c.Name)
		for _, s := range columns {
			if r, ok := s.row(c.Name); ok {
				fmt.Fprintf(b, " %s |", short(median(r.times())))
			} else {
				b.WriteString(" – |")
			}
		}
		b.WriteString("\n")
	}
}

// table is everything about one condition.
func table(b *strings.Builder, s series) {
	fmt.Fprintf(b, "\n### %s, %g ms round-trip time, %s\n\n", strings.ToUpper(s.Shape[:1])+s.Shape[1:], s.RTT, lossText(s.Loss))
	fmt.Fprintf(b, "Load average %s.\n\n", s.Load)
	b.WriteString("| client | runs | no name | median | min | max | p99 | to the exit | × limit | × bare |\n| --- |" + strings.Repeat(" ---: |", 9) + "\n")
	bare, hasBare := s.row(bareStatic)
	if !hasBare {
		bare, hasBare = s.row(bareDHCP)
	}
	for _, r := range s.Rows {
		fmt.Fprintf(b, "| %s | %d | %d |", r.Client, len(r.Name)+len(r.Failed), len(r.Failed))
		if len(r.Name) == 0 {
			b.WriteString(strings.Repeat(" – |", 7) + "\n")
			continue
		}
		middle := median(r.times())
		limit, against := "–", "–"
		if s.RTT > 0 && !math.IsInf(middle, 1) {
			limit = fmt.Sprintf("%.2f × %d", middle/s.limit(r), r.Trips)
		}
		if hasBare && !math.IsInf(middle, 1) {
			against = fmt.Sprintf("%.2f", middle/median(bare.times()))
		}
		fmt.Fprintf(b, " %s | %s | %s | %s | %s | %s | %s |\n", short(middle), short(percentile(r.times(), 0)), short(percentile(r.times(), 100)),
			short(percentile(r.times(), 99)), short(median(r.Exit)), limit, against)
	}
}

func lossText(loss float64) string {
	if loss == 0 {
		return "nothing lost"
	}
	return fmt.Sprintf("%.0f %% lost each way", 100*loss)
}

// ours says whether a client is nametag or a prototype of ours.
func ours(client string) bool {
	return strings.HasPrefix(client, nametag) || client == bareLinkLocal || client == bareStatic || client == bareDHCP
}

// short is a time in milliseconds to three digits or so; none for what took for ever.
func short(ms float64) string {
	if math.IsInf(ms, 1) {
		return "none"
	}
	if ms < 99.95 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// mib is a size in MiB, and a dash for none.
func mib(bytes int) string {
	if bytes == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", float64(bytes)/(1<<20))
}
