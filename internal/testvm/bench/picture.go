//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// The measures of the picture, in pixels.
const (
	margin    = 20
	labels    = 165 // the column of names
	panel     = 185 // one network
	gap       = 18
	rowHeight = 26
	top       = 92 // above the first row
	bottom    = 62 // below the last
)

// The time axis is logarithmic, from a millisecond to half a minute.
const (
	axisFrom = 1.0
	axisTo   = 30000.0
)

// shown are the networks of the picture, as far as they were measured.
var shown = []condition{
	{shape: cloud.Public},
	{shape: cloud.Public, rtt: 20 * time.Millisecond},
	{shape: cloud.Private, rtt: 20 * time.Millisecond},
	flagship,
}

// The picture brings its own background, and follows the reader's colour scheme where it can tell.
const style = `
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .head { font-weight: 600 }
  .faint, .tick { fill: #59636e }
  .tick { font-size: 10px }
  .value { font-size: 11px }
  .ours { fill: #0969da; font-weight: 600 }
  .card { fill: #ffffff; stroke: #d1d9e0 }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .range { stroke: #818b98; stroke-width: 3; stroke-linecap: round }
  .dot { fill: #59636e }
  .limit { stroke: #bc4c00; stroke-width: 2 }
  .range.own { stroke: #54aeff } .dot.own { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .faint, .tick { fill: #9198a1 }
    .ours { fill: #58a6ff }
    .card { fill: #0d1117; stroke: #3d444d }
    .grid { stroke: #2a313c }
    .range { stroke: #656c76 } .dot { fill: #9198a1 }
    .limit { stroke: #f0883e }
    .range.own { stroke: #1f6feb } .dot.own { fill: #58a6ff }
  }
`

// picture is the comparison as SVG: a row for each client, a column for each network.
func picture(f *figures) string {
	var columns []series
	for _, c := range shown {
		if s, ok := f.series(c.shape, c.rtt, c.loss); ok {
			columns = append(columns, s)
		}
	}
	var rows []string
	for _, c := range f.Clients {
		// nametag as it comes is enough: what it takes by one method alone is in the table.
		if c.Missing == "" && !strings.HasPrefix(c.Name, nametag+" ") {
			rows = append(rows, c.Name)
		}
	}
	width := 2*margin + labels + len(columns)*(panel+gap) - gap
	height := top + len(rows)*rowHeight + bottom

	b := new(strings.Builder)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="t d">`+"\n", width, height, width, height)
	fmt.Fprintf(b, "<title id=\"t\">Time to the server's name</title>\n<desc id=\"d\">%s</desc>\n", html.EscapeString(described(columns)))
	fmt.Fprintf(b, "<style>%s</style>\n", style)
	fmt.Fprintf(b, `<rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`+"\n", width-1, height-1)
	words(b, margin, 30, "title", "start", "From exec to the server's name")
	words(b, margin, 48, "faint", "start", "milliseconds, on a logarithmic scale; less is better")
	for i, name := range rows {
		class := ""
		if name == nametag {
			class = "ours"
		}
		words(b, margin, float64(top+i*rowHeight+17), class, "start", name)
	}
	for i, s := range columns {
		column(b, float64(margin+labels+i*(panel+gap)), s, rows)
	}
	legend(b, float64(height-18))
	b.WriteString("</svg>\n")
	return b.String()
}

// column draws one network.
func column(b *strings.Builder, left float64, s series, rows []string) {
	x := func(ms float64) float64 {
		ms = min(max(ms, axisFrom), axisTo)
		return left + panel*math.Log(ms/axisFrom)/math.Log(axisTo/axisFrom)
	}
	end := float64(top + len(rows)*rowHeight)
	words(b, left, 70, "head", "start", fmt.Sprintf("%s, %g ms RTT", s.Shape, s.RTT))
	words(b, left, 84, "tick", "start", lossText(s.Loss))
	for _, t := range []struct {
		ms   float64
		text string
	}{{1, "1"}, {10, "10"}, {100, "100"}, {1000, "1 s"}, {10000, "10 s"}} {
		line(b, "grid", x(t.ms), top, x(t.ms), end)
		words(b, x(t.ms), end+13, "tick", "middle", t.text)
	}
	for i, name := range rows {
		y := float64(top+i*rowHeight) + 13
		j := slices.IndexFunc(s.Rows, func(r row) bool { return r.Client == name })
		if j < 0 || len(s.Rows[j].Name) == 0 {
			why := "no name"
			if j < 0 {
				why = "cannot: needs DHCP"
			}
			words(b, left+4, y+4, "tick", "start", why)
			continue
		}
		r, own := s.Rows[j], ""
		if name == nametag {
			own = " own"
		}
		least, most, middle := percentile(r.times(), 0), percentile(r.times(), 100), median(r.times())
		if s.RTT > 0 {
			line(b, "limit", x(s.limit(r)), y-8, x(s.limit(r)), y+8)
		}
		line(b, "range"+own, x(least), y, x(most), y)
		if math.IsInf(middle, 1) {
			words(b, x(least)-9, y+4, "value", "end", fmt.Sprintf("%d of %d: none", len(r.Failed), len(r.Failed)+len(r.Name)))
			continue
		}
		fmt.Fprintf(b, `<circle class="dot%s" cx="%.1f" cy="%.1f" r="5"/>`+"\n", own, x(middle), y)
		// Right of the range, unless that is the edge.
		if x(most) < left+panel-34 {
			words(b, x(most)+8, y+4, "value", "start", short(middle))
		} else {
			words(b, x(least)-9, y+4, "value", "end", short(middle))
		}
	}
}

// legend explains the marks.
func legend(b *strings.Builder, y float64) {
	at := float64(margin)
	line(b, "range own", at, y-4, at+30, y-4)
	fmt.Fprintf(b, `<circle class="dot own" cx="%.1f" cy="%.1f" r="5"/>`+"\n", at+12, y-4)
	words(b, at+40, y, "faint", "start", "median, between the fastest and the slowest run")
	at += 400
	line(b, "limit", at, y-12, at, y+4)
	words(b, at+10, y, "faint", "start", "the limit: the round trips that the protocols need")
}

// described is the picture in words, for those who cannot see it.
func described(columns []series) string {
	var parts []string
	for _, s := range columns {
		mine, ok := s.row(nametag)
		best, there := s.bestPeer()
		if !ok || !there {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s network, %g ms, %s: nametag %s ms, the best other client, %s, %s ms", s.Shape, s.RTT, lossText(s.Loss),
			short(median(mine.times())), best.Client, short(median(best.times()))))
	}
	return "Median time to the name. " + strings.Join(parts, ". ") + "."
}

func words(b *strings.Builder, x, y float64, class, anchor, text string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(text))
}

func line(b *strings.Builder, class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}
