package deploy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

var update = flag.Bool("update-dashboard", false, "write the dashboard's file anew")

const dashboardFile = "chart/nametag-audit/files/dashboard.json"

// The file is what is made; -update-dashboard writes it.
func TestTheDashboardIsWhatIsMade(t *testing.T) {
	made, err := Dashboard()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(dashboardFile, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, made) {
		t.Errorf("%s is not what Dashboard makes: go test . -update-dashboard", dashboardFile)
	}
	all := rendered(t, "nametag-audit", "nametag", "dashboard: {enabled: true}")
	if got := all["ConfigMap/nametag/nametag-audit-dashboard"]["data"].(map[string]any)["nametag-audit.json"]; got != string(kept) {
		t.Errorf("the chart has another one: %v", got)
	}
}

// queriesOf are the queries of a dashboard, wherever they stand.
func queriesOf(value any) []string {
	var all []string
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if expr, ok := inner.(string); ok && key == "expr" {
				all = append(all, expr)
				continue
			}
			all = append(all, queriesOf(inner)...)
		}
	case []any:
		for _, inner := range v {
			all = append(all, queriesOf(inner)...)
		}
	}
	return all
}

func TestPrometheusUnderstandsTheDashboard(t *testing.T) {
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var board any
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	queries := queriesOf(board)
	if len(queries) < 12 {
		t.Errorf("%d queries: %q", len(queries), queries)
	}
	language := parser.NewParser(parser.Options{})
	for _, q := range queries {
		if _, err := language.ParseExpr(strings.ReplaceAll(q, "$__rate_interval", "5m")); err != nil {
			t.Errorf("%s: %v", q, err)
		}
	}
}
