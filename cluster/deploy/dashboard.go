package deploy

import (
	"encoding/json"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// Dashboard is Grafana's dashboard for nametag-audit, as JSON.
func Dashboard() ([]byte, error) {
	// The older of the two forms: the newer one is not what every Grafana in use imports.
	b := dashboard.NewDashboardBuilder("nametag audit") //nolint:staticcheck // for that reason
	b.Uid("nametag-audit").
		Description("Whether every machine has one name: in the cloud, in etcd, in Kubernetes and in Cluster API.").
		Tags([]string{"nametag", "etcd", "hetzner"}).Readonly().Refresh("1m").Time("now-24h", "now").Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("The findings").Type(dashboard.DashboardLinkTypeLink).TargetBlank(true).
			Url("https://github.com/nametag-boot/nametag/blob/main/docs/audit.md#the-findings")).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(dashboard.NewQueryVariableBuilder("job").Label("Job").Datasource(source).
			Query(dashboard.StringOrMap{String: cog.ToPtr("label_values(nametag_audit_leader, job)")}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).IncludeAll(true).AllValue(".*").Multi(true)).
		WithRow(dashboard.NewRowBuilder("Now")).
		WithPanel(number("Critical", "It hurts now, or somebody is about to remove what is healthy.",
			`sum(`+now(`nametag_audit_finding`, `severity="critical"`)+`) or vector(0)`, "green", 1, "red")).
		WithPanel(number("Warnings", "It will hurt at the next reboot, upgrade or replacement.",
			`sum(`+now(`nametag_audit_finding`, `severity="warning"`)+`) or vector(0)`, "green", 1, "orange")).
		WithPanel(number("Machines that agree", "Every name that they have is the server's.",
			`sum(`+now(`nametag_audit_machines`, `agree="true"`)+`)`, "blue", 0, "blue")).
		WithPanel(number("Machines that differ", "",
			`sum(`+now(`nametag_audit_machines`, `agree="false"`)+`)`, "green", 1, "orange")).
		WithPanel(number("etcd members to spare", "How many may go away now. Below zero there is no quorum.",
			`min(`+now(`nametag_audit_etcd_members_up`)+` - `+now(`nametag_audit_etcd_members_needed`)+`)`, "red", 1, "green")).
		WithPanel(number("Sources that are not read", "What only they could show is not seen.",
			`count(`+now(`nametag_audit_source_up`)+` == 0) or vector(0)`, "green", 1, "orange")).
		WithRow(dashboard.NewRowBuilder("Findings")).
		WithPanel(table.NewPanelBuilder().Title("Findings now").Description("The page of nametag-audit has the evidence and the remedy.").
			Datasource(source).Height(9).Span(12).
			WithTarget(query(now(`nametag_audit_finding`)).Instant().Format(prometheus.PromQueryFormatTable)).
			WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
				"excludeByName": map[string]any{"Time": true, "Value": true, "job": true},
				"indexByName":   map[string]any{"severity": 0, "id": 1, "server": 2},
			}})).
		WithPanel(lines("Findings", `sum by (id) (`+now(`nametag_audit_finding`, `severity!="info"`)+`)`, "{{id}}", "short")).
		WithRow(dashboard.NewRowBuilder("etcd and rounds")).
		WithPanel(lines("etcd's voting members", now(`nametag_audit_etcd_voting_members`), "voting", "short").
			WithTarget(query(now(`nametag_audit_etcd_members_up`)).LegendFormat("up")).
			WithTarget(query(now(`nametag_audit_etcd_members_needed`)).LegendFormat("needed"))).
		WithPanel(lines("Rounds", `sum by (result) (increase(nametag_audit_rounds_total{job=~"$job"}[$__rate_interval]))`, "{{result}}", "short")).
		WithRow(dashboard.NewRowBuilder("Sources")).
		WithPanel(lines("How long a source takes", now(`nametag_audit_source_duration_seconds`), "{{source}}", "s")).
		WithPanel(lines("Since it was read last", `time() - `+now(`nametag_audit_source_last_success_timestamp_seconds`), "{{source}}", "s")).
		WithPanel(lines("What it has", now(`nametag_audit_source_objects`), "{{source}}", "short")).
		WithPanel(lines("Processes that audit", `sum(nametag_audit_leader{job=~"$job"})`, "at work", "short"))
	made, err := b.Build()
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(made, "", "  ")
	return append(text, '\n'), err
}

// source is the data source that is chosen at the top.
var source = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}

// now is a metric of the process that audits, whichever of them it is.
func now(metric string, matchers ...string) string {
	selector := `job=~"$job"`
	for _, m := range matchers {
		selector += ", " + m
	}
	return "max without (instance, pod) (" + metric + "{" + selector + "})"
}

func query(expr string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Expr(expr)
}

// number shows a query's value, in a colour from a step on.
func number(title, about, expr, below string, step float64, from string) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Description(about).Datasource(source).Height(5).Span(4).
		WithTarget(query(expr).Instant()).
		ColorMode(common.BigValueColorModeBackground).GraphMode(common.BigValueGraphModeNone).
		Thresholds(dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps([]dashboard.Threshold{
			{Color: below}, {Value: cog.ToPtr(step), Color: from},
		}))
}

func lines(title, expr, legend, unit string) *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().Title(title).Datasource(source).Height(9).Span(12).Unit(unit).Min(0).
		WithTarget(query(expr).LegendFormat(legend))
}
