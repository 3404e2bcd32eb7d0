package watch

import (
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Handler serves /metrics, /healthz, /readyz and a page.
func (w *Watcher) Handler() http.Handler {
	w.init()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &metrics{w})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", w.healthz)
	mux.HandleFunc("GET /readyz", w.readyz)
	mux.HandleFunc("GET /{$}", w.page)
	return mux
}

// healthz fails when a round hangs: three intervals without one while this process leads.
func (w *Watcher) healthz(out http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	leading, finished := w.leading, w.finished
	w.mu.Unlock()
	if leading && !finished.IsZero() && time.Since(finished) > 3*w.Interval+10*w.Timeout {
		http.Error(out, fmt.Sprintf("the last round ended %s ago", time.Since(finished).Round(time.Second)), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(out, "ok")
}

// readyz is true once there is something to tell, and for one that stands by at once.
func (w *Watcher) readyz(out http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leading && w.report == nil {
		http.Error(out, "the first round is not done yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(out, "ok")
}

// metrics gives out the last report. It is made anew for every scrape: a finding that has gone leaves no series behind.
type metrics struct{ w *Watcher }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("nametag_audit_"+name, help, labels, nil)
}

var (
	findingDesc  = describe("finding", "Findings of a kind for a server (by its id in the cloud; empty where it is about none).", "id", "severity", "server")
	machinesDesc = describe("machines", "Machines of the cluster, by whether all their names agree.", "agree")
	upDesc       = describe("source_up", "Whether the source could be read in the last round.", "source")
	successDesc  = describe("source_last_success_timestamp_seconds", "When the source was read last.", "source")
	tookDesc     = describe("source_duration_seconds", "How long reading the source took in the last round.", "source")
	objectsDesc  = describe("source_objects", "What the source had in the last round.", "source")
	roundsDesc   = describe("rounds_total", "Rounds, by result: agree, findings, incomplete (a source could not be read), failed.", "result")
	votingDesc   = describe("etcd_voting_members", "etcd's voting members.")
	membersDesc  = describe("etcd_members_up", "etcd's voting members that are up.")
	neededDesc   = describe("etcd_members_needed", "How many voting members etcd needs.")
	leaderDesc   = describe("leader", "Whether this process is the one that audits.")
)

func (m *metrics) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, to) }

func (m *metrics) Collect(to chan<- prometheus.Metric) {
	w := m.w
	w.mu.Lock()
	defer w.mu.Unlock()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(leaderDesc, number(w.leading))
	for _, result := range []string{"agree", "findings", "incomplete", "failed"} {
		to <- prometheus.MustNewConstMetric(roundsDesc, prometheus.CounterValue, float64(w.rounds[result]), result)
	}
	for source, at := range w.success {
		gauge(successDesc, float64(at.Unix()), string(source))
	}
	if w.report == nil {
		return
	}
	type series struct{ id, severity, server string }
	counts := map[series]int{}
	for _, f := range w.report.Findings {
		server := ""
		if f.Server != 0 {
			server = strconv.FormatInt(f.Server, 10)
		}
		counts[series{string(f.ID), string(f.Severity), server}]++
	}
	for s, n := range counts {
		gauge(findingDesc, float64(n), s.id, s.severity, s.server)
	}
	agree := 0
	for _, row := range w.report.Machines {
		agree += int(number(row.Agrees))
	}
	gauge(machinesDesc, float64(agree), "true")
	gauge(machinesDesc, float64(len(w.report.Machines)-agree), "false")
	for _, s := range w.report.Sources {
		if s.State == audit.SourceOff {
			continue
		}
		gauge(upDesc, number(s.State == audit.SourceRead), string(s.Source))
		gauge(tookDesc, s.Took.Seconds(), string(s.Source))
		gauge(objectsDesc, float64(s.Objects), string(s.Source))
	}
	if q := w.report.Quorum; q != nil {
		gauge(votingDesc, float64(q.Voting))
		gauge(membersDesc, float64(q.Up))
		gauge(neededDesc, float64(q.Needed))
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="30">
<title>nametag audit</title>
<style>
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
th{font-weight:600;color:#57606a}code{background:#f3f4f6;padding:.1rem .3rem;border-radius:3px;overflow-wrap:anywhere}
section{border-left:4px solid #8c959f;padding:.2rem 0 .2rem 1rem;margin:1.2rem 0}section.critical{border-color:#cf222e}section.warning{border-color:#bf8700}
.ok{color:#1a7f37}.bad{color:#cf222e}h2{font-size:1.05rem;margin:.2rem 0}small{color:#57606a}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,small{color:#8b949e}th,td{border-color:#30363d}code{background:#161b22}}
</style></head><body>
<h1>nametag audit</h1>
{{if not .Report}}<p>{{if .Leading}}The first round is not done yet.{{else}}Another process audits; this one stands by.{{end}}</p>{{else}}
<p><small>{{.Report.Taken.Format "2006-01-02 15:04:05 MST"}}{{range .Report.Sources}}{{if ne .State "off"}} · {{.Source}} {{if eq .State "read"}}<span class="ok">{{.Objects}}</span>{{else}}<span class="bad" title="{{.Error}}">not read: {{.Error}}</span>{{end}}{{end}}{{end}}{{with .Report.Quorum}} · etcd: {{.}}{{end}}</small></p>
{{if .Report.Findings}}{{range .Report.Findings}}<section class="{{.Severity}}"><h2>{{.Severity}}: {{.ID}}</h2><p>{{.Message}}</p>
{{if .Pending}}<p><small>perhaps under way: {{.Pending}}</small></p>{{else}}<ol>{{range .Remedy}}<li>{{.Text}}{{with .Command}}<br><code>{{.}}</code>{{end}}</li>{{end}}</ol>{{end}}</section>
{{end}}{{else}}<p class="ok">No findings.</p>{{end}}
<table><thead><tr><th>server</th><th>cloud</th><th>etcd</th><th>Kubernetes</th><th>Cluster API</th><th></th></tr></thead><tbody>
{{range .Report.Machines}}<tr><td>{{with .Server}}{{.}}{{end}}</td><td>{{.Cloud}}</td><td>{{range .Members}}{{.}}<br>{{end}}</td><td>{{range .Nodes}}{{.}}<br>{{end}}</td><td>{{range .Machines}}{{.}}<br>{{end}}</td><td>{{if .Agrees}}<span class="ok">agrees</span>{{else}}<span class="bad">differs</span>{{end}}</td></tr>
{{end}}</tbody></table>{{end}}
</body></html>
`))

func (w *Watcher) page(out http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	data := struct {
		Report  *audit.Report
		Leading bool
	}{w.report, w.leading}
	w.mu.Unlock()
	out.Header().Set("Content-Type", "text/html; charset=utf-8")
	out.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if err := page.Execute(out, data); err != nil {
		w.Log.Debug("the page's reader has gone", "error", err)
	}
}
