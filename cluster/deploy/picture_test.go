package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// A morning, minute by minute: a server is renamed at 0:20 and named back at 1:00; at 0:40 a member comes under an invented name, which
// a control-plane provider would remove, and is mended at 1:20; from 0:50 to 1:00 etcd cannot be read, and at 1:30 the other process takes over.
const morning = `load 1m
  nametag_audit_leader{job="audit", instance="a"} 1x90 0x29
  nametag_audit_leader{job="audit", instance="b"} 0x90 1x29
  nametag_audit_machines{job="audit", instance="a", agree="true"} 9x19 8x19 7x19 8x19 9x40
  nametag_audit_machines{job="audit", instance="a", agree="false"} 0x19 1x19 2x19 1x19 0x40
  nametag_audit_finding{job="audit", instance="a", id="server-renamed", severity="warning", server="4711002"} _x20 1x39 _x60
  nametag_audit_finding{job="audit", instance="a", id="member-name-invented", severity="critical", server="4711001"} _x40 1x39 _x40
  nametag_audit_finding{job="audit", instance="a", id="capi-removes-members", severity="critical", server=""} _x40 1x39 _x40
  nametag_audit_finding{job="audit", instance="a", id="member-without-name", severity="info", server="4711009"} _x110 1x9
  nametag_audit_source_up{job="audit", instance="a", source="cloud"} 1x119
  nametag_audit_source_up{job="audit", instance="a", source="etcd"} 1x49 0x9 1x60
  nametag_audit_source_duration_seconds{job="audit", instance="a", source="cloud"} 0.4x39 0.6x39 0.4x40
  nametag_audit_source_duration_seconds{job="audit", instance="a", source="etcd"} 0.1x49 30x9 0.1x60
  nametag_audit_source_last_success_timestamp_seconds{job="audit", instance="a", source="cloud"} 0+60x119
  nametag_audit_source_last_success_timestamp_seconds{job="audit", instance="a", source="etcd"} 0+60x49 2940x9 3600+60x60
  nametag_audit_source_objects{job="audit", instance="a", source="cloud"} 9x119
  nametag_audit_source_objects{job="audit", instance="a", source="etcd"} 3x49 0x9 3x60
  nametag_audit_etcd_voting_members{job="audit", instance="a"} 3x119
  nametag_audit_etcd_members_up{job="audit", instance="a"} 3x79 2x4 3x35
  nametag_audit_etcd_members_needed{job="audit", instance="a"} 2x119
  nametag_audit_rounds_total{job="audit", instance="a", result="agree"} 0+1x19 20x59 20+1x40
  nametag_audit_rounds_total{job="audit", instance="a", result="findings"} 0x19 0+1x59 60x40
`

// A panel is as much of one of the dashboard's as a picture needs.
type panel struct {
	Title, Type string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ Expr, LegendFormat string }
}

// The dashboard on a morning's data, as Prometheus answers its queries. Every panel has something to show; the picture in the
// documentation is of this, and -update-dashboard draws it.
func TestEveryPanelHasSomethingToShow(t *testing.T) {
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var board struct{ Panels []panel }
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	data := promqltest.LoadedStorage(t, morning)
	t.Cleanup(func() { data.Close() })
	engine := promqltest.NewTestEngine(t, false, 0, 100000)
	var d drawing
	for _, p := range board.Panels {
		if p.Type == "row" {
			d.row(p)
			continue
		}
		var shown []series
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*").Replace(target.Expr)
			q, err := engine.NewRangeQuery(t.Context(), data, nil, expr, time.Unix(0, 0), time.Unix(0, 0).Add(2*time.Hour-time.Minute), time.Minute)
			if err != nil {
				t.Fatalf("%s: %v", p.Title, err)
			}
			matrix, err := q.Exec(t.Context()).Matrix()
			if err != nil {
				t.Fatalf("%s: %v", p.Title, err)
			}
			for _, s := range matrix {
				if len(s.Floats) > 0 {
					shown = append(shown, series{legend(target.LegendFormat, s), slices.Clone(s.Floats)}) // Close takes them back
				}
			}
			q.Close()
		}
		if len(shown) == 0 {
			t.Errorf("%s: %s is empty", p.Title, p.Targets[0].Expr)
			continue
		}
		slices.SortStableFunc(shown, func(a, b series) int { return strings.Compare(a.name, b.name) })
		d.panel(p, shown)
	}
	const picture = "../../docs/audit/dashboard.svg"
	drawn := d.svg()
	if *update {
		if err := os.WriteFile(picture, drawn, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := os.ReadFile(picture); err != nil || !bytes.Equal(kept, drawn) {
		t.Errorf("%s is another one (%v): go test . -update-dashboard", picture, err)
	}
}

type series struct {
	name   string
	points []promql.FPoint
}

func legend(format string, s promql.Series) string {
	if format == "" {
		return s.Metric.Get("severity") + "  " + s.Metric.Get("id") + "  " + s.Metric.Get("server")
	}
	return regexp.MustCompile(`{{\w+}}`).ReplaceAllStringFunc(format, func(m string) string { return s.Metric.Get(strings.Trim(m, "{}")) })
}

// A drawing is a dashboard as SVG, a unit of the grid as wide and high as unit.
type drawing struct {
	b      strings.Builder
	height int
}

const (
	unitX, unitY = 40, 20
	long         = 2 * time.Hour
)

var colours = []string{"#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b"}

func (d *drawing) text(x, y, size int, fill, text string) {
	fmt.Fprintf(&d.b, "<text x=\"%d\" y=\"%d\" font-size=\"%d\" fill=\"%s\">%s</text>\n", x, y, size, fill, html.EscapeString(text))
}

func (d *drawing) row(p panel) {
	d.text(p.GridPos.X*unitX+4, p.GridPos.Y*unitY+15, 13, "#57606a", p.Title)
}

func (d *drawing) panel(p panel, all []series) {
	x, y, w, h := p.GridPos.X*unitX+4, p.GridPos.Y*unitY+4, p.GridPos.W*unitX-8, p.GridPos.H*unitY-8
	d.height = max(d.height, y+h+8)
	fmt.Fprintf(&d.b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"3\" fill=\"#fff\" stroke=\"#d8dee4\"/>\n", x, y, w, h)
	d.text(x+8, y+18, 11, "#1b1f24", p.Title)
	switch p.Type {
	case "stat":
		// As it was in the middle of the morning, when most was wrong.
		i := slices.IndexFunc(all[0].points, func(f promql.FPoint) bool { return f.T >= (45 * time.Minute).Milliseconds() })
		d.text(x+8, y+62, 32, "#1b1f24", fmt.Sprint(all[0].points[max(i, 0)].F))
	case "table":
		for i, s := range all {
			d.text(x+8, y+40+i*18, 11, "#1b1f24", s.name)
		}
	default:
		d.lines(x+8, y+28, w-16, h-52, all)
	}
}

func (d *drawing) lines(x, y, w, h int, all []series) {
	most := 0.0
	for _, s := range all {
		for _, f := range s.points {
			most = max(most, f.F)
		}
	}
	fmt.Fprintf(&d.b, "<path d=\"M%d %dh%d\" stroke=\"#d8dee4\"/>\n", x, y+h, w)
	d.text(x, y+6, 9, "#57606a", fmt.Sprintf("%.3g", most))
	at := x
	for i, s := range all {
		colour := colours[i%len(colours)]
		var path strings.Builder
		last := int64(-1 << 60)
		for _, f := range s.points {
			verb := "L"
			if f.T-last > time.Minute.Milliseconds() {
				verb = "M"
			}
			last = f.T
			fmt.Fprintf(&path, "%s%.1f %.1f", verb, float64(x)+float64(w)*float64(f.T)/float64(long.Milliseconds()), float64(y+h)-float64(h)*f.F/max(most, 1e-9))
		}
		fmt.Fprintf(&d.b, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/>\n", path.String(), colour)
		d.text(at, y+h+16, 10, colour, s.name)
		at += 7*len(s.name) + 16
	}
}

func (d *drawing) svg() []byte {
	return fmt.Appendf(nil, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"system-ui,sans-serif\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#f6f8fa\"/>\n%s</svg>\n",
		24*unitX, d.height, d.b.String())
}
