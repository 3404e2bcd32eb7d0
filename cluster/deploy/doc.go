// Package deploy has what nametag-audit is installed and watched with: a plain manifest, a Helm chart, alert rules and a dashboard.
// Its tests hold them by the tools that will read them: Helm's renderer, Prometheus' rules, Grafana's own types. Those are large,
// which is why this is a module of its own.
package deploy
