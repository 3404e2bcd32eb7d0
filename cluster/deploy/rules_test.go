package deploy

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v2"
)

const rulesFile = "chart/nametag-audit/files/rules.yaml"

// A unitTest is as much of promtool's form as is used here. (promtool itself comes with the clients of every cloud.)
type unitTest struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []struct {
		Name        string
		Interval    model.Duration
		InputSeries []struct{ Series, Values string } `yaml:"input_series"`
		Alerts      []expectation                     `yaml:"alert_rule_test"`
	}
}

// An expectation is what an alert is to be at a moment. Of the annotations those count that are given.
type expectation struct {
	Name string         `yaml:"alertname"`
	At   model.Duration `yaml:"eval_time"`
	Want []struct {
		Labels      map[string]string `yaml:"exp_labels"`
		Annotations map[string]string `yaml:"exp_annotations"`
	} `yaml:"exp_alerts"`
}

func TestTheAlertsComeAndGo(t *testing.T) {
	text, err := os.ReadFile("rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file unitTest
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{} // the alerts that came somewhere
	for _, test := range file.Tests {
		t.Run(test.Name, func(t *testing.T) {
			series := fmt.Sprintf("load %s\n", test.Interval)
			for _, s := range test.InputSeries {
				series += "  " + s.Series + " " + s.Values + "\n"
			}
			at := map[time.Duration][]expectation{}
			for _, a := range test.Alerts {
				at[time.Duration(a.At)] = append(at[time.Duration(a.At)], a)
			}
			evaluate(t, series, file.RuleFiles, time.Duration(file.EvaluationInterval), slices.Max(slices.Collect(maps.Keys(at))), func(now time.Duration, all []*rules.AlertingRule) {
				for _, want := range at[now] {
					i := slices.IndexFunc(all, func(r *rules.AlertingRule) bool { return r.Name() == want.Name })
					if i < 0 {
						t.Fatalf("there is no alert %s", want.Name)
					}
					want.holds(t, all[i])
					tried[want.Name] = tried[want.Name] || len(want.Want) > 0
				}
			})
		})
	}
	var all struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	text, err = os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			if !tried[r.Alert] {
				t.Errorf("no test sees %s come", r.Alert)
			}
		}
	}
}

// holds compares what fires with what is to fire.
func (e expectation) holds(t *testing.T, rule *rules.AlertingRule) {
	t.Helper()
	var firing []*rules.Alert
	for _, a := range rule.ActiveAlerts() {
		if a.State == rules.StateFiring {
			firing = append(firing, a)
		}
	}
	if len(firing) != len(e.Want) {
		t.Errorf("%s at %s: %d fire, want %d: %v", e.Name, e.At, len(firing), len(e.Want), firing)
		return
	}
	for _, want := range e.Want {
		set := maps.Clone(want.Labels)
		set[labels.AlertName] = e.Name
		i := slices.IndexFunc(firing, func(a *rules.Alert) bool { return labels.Equal(a.Labels, labels.FromMap(set)) })
		if i < 0 {
			t.Errorf("%s at %s: none fires with the labels %v; %v", e.Name, e.At, set, firing)
			continue
		}
		for name, text := range want.Annotations {
			if got := firing[i].Annotations.Get(name); got != text {
				t.Errorf("%s at %s: %s is %q, want %q", e.Name, e.At, name, got, text)
			}
		}
	}
}

// evaluate lets Prometheus' own rules work on series from the beginning to the end, and calls see after every evaluation.
func evaluate(t *testing.T, series string, files []string, every, end time.Duration, see func(time.Duration, []*rules.AlertingRule)) {
	t.Helper()
	language := parser.NewParser(parser.Options{})
	loader, err := promqltest.NewLazyLoader(series, promqltest.LazyLoaderOpts{Parser: language})
	if err != nil {
		t.Fatal(err)
	}
	defer loader.Close()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(loader.QueryEngine(), loader.Storage()), AppendableV2: loader.Storage(), Context: t.Context(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, Logger: slog.New(slog.DiscardHandler), Parser: language,
	})
	groups, errs := manager.LoadGroups(every, labels.EmptyLabels(), "", nil, false, files...)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var alerting []*rules.AlertingRule
	for _, g := range groups {
		for _, r := range g.Rules() {
			rule, ok := r.(*rules.AlertingRule)
			if !ok {
				continue
			}
			rule.SetRestored(true)
			alerting = append(alerting, rule)
		}
	}
	for now := time.Duration(0); now <= end; now += every {
		moment := time.Unix(0, 0).UTC().Add(now)
		loader.WithSamplesTill(moment, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range groups {
				g.Eval(loader.Context(), moment)
			}
		})
		for _, r := range alerting {
			if err := r.LastError(); err != nil {
				t.Fatalf("%s: %v", r.Name(), err)
			}
		}
		see(now, alerting)
	}
}

// The rules are those of the chart and of the plain file alike, in the form that the operator wants.
func TestTheChartHasTheRules(t *testing.T) {
	all := rendered(t, "nametag-audit", "nametag", "prometheusRule: {enabled: true}")
	var want any
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	plain := objects{}
	plain.add(t, "kind: Rules\nmetadata: {name: rules}\nspec:\n  "+strings.ReplaceAll(string(text), "\n", "\n  "))
	want = plain["Rules/rules"]["spec"]
	got := all["PrometheusRule/nametag/nametag-audit"]["spec"]
	if string(asYAML(t, got)) != string(asYAML(t, want)) {
		t.Errorf("%s", asYAML(t, got))
	}
}
