// Package form writes a report for people (a table, in colour on a terminal) and for programs (JSON, YAML).
package form

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Names are the forms by name.
func Names() []string { return []string{"table", "json", "yaml"} }

// Write writes the report in a form.
func Write(w io.Writer, form string, r *audit.Report, colour bool) error {
	switch form {
	case "table":
		return Table(w, r, colour)
	case "json", "yaml":
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		b = append(b, '\n')
		if form == "yaml" {
			if b, err = yaml.JSONToYAML(b); err != nil {
				return err
			}
		}
		_, err = w.Write(b)
		return err
	}
	return fmt.Errorf("%q is no form: choose %s", form, strings.Join(Names(), ", "))
}

var colours = map[audit.Severity]string{audit.Critical: "\x1b[1;31m", audit.Warning: "\x1b[33m", audit.Info: "\x1b[36m"}

const plain = "\x1b[0m"

// Table writes every machine that does not agree with all the names that it has, those that agree in one line, then every
// finding with its evidence and its remedy.
func Table(w io.Writer, r *audit.Report, colour bool) error {
	paint := func(s audit.Severity, text string) string {
		if !colour {
			return text
		}
		return colours[s] + text + plain
	}
	p := &printer{w: w}
	for _, s := range r.Sources {
		if s.State == audit.SourceFailed {
			p.f("%s %s could not be read: %s\n", paint(audit.Critical, "!"), s.Source, s.Error)
		}
	}
	p.machines(r)
	worst := map[audit.Severity]int{}
	evidence := fmt.Sprint([]audit.Evidence(nil)) // what was printed last: findings of one machine have the same
	for _, f := range r.Findings {
		worst[f.Severity]++
		p.f("\n%s %s\n", paint(f.Severity, strings.ToUpper(string(f.Severity))), f.ID)
		p.f("  %s\n", f.Message)
		if f.Pending != "" {
			p.f("  perhaps under way: %s\n", f.Pending)
			continue
		}
		if key := fmt.Sprint(f.Evidence); key == evidence && len(f.Evidence) > 0 {
			p.f("    (the same is seen as above)\n")
		} else {
			evidence = key
			for _, e := range f.Evidence {
				p.f("    %-11s %s\n", e.Source, e.Says)
			}
		}
		if len(f.Remedy) > 0 {
			p.f("  what to do, in this order:\n")
		}
		for i, step := range f.Remedy {
			p.f("    %d. %s\n", i+1, step.Text)
			if step.Command != "" {
				p.f("       %s\n", step.Command)
			}
		}
	}
	p.f("\n%s\n", summary(r, worst))
	return p.err
}

// summary is the last line.
func summary(r *audit.Report, counts map[audit.Severity]int) string {
	var parts []string
	for _, s := range slices.Backward(audit.Severities()) {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	text := "no findings"
	switch {
	case len(parts) > 0:
		text = "findings: " + strings.Join(parts, ", ")
	case len(r.Failed()) == 0:
		text = "all agree"
	}
	var read []string
	for _, s := range r.Sources {
		if s.State == audit.SourceRead {
			read = append(read, fmt.Sprintf("%s %d in %s", s.Source, s.Objects, s.Took.Round(time.Millisecond)))
		}
	}
	if len(read) > 0 {
		text += "; read: " + strings.Join(read, ", ")
	}
	if r.Quorum != nil {
		text += "; etcd: " + r.Quorum.String()
	}
	return text
}

// A printer remembers the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) machines(r *audit.Report) {
	var agree []string
	var rows []audit.Row
	for _, m := range r.Machines {
		if m.Agrees {
			agree = append(agree, m.Name)
		} else {
			rows = append(rows, m)
		}
	}
	if len(rows) > 0 {
		t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "SERVER\tCLOUD\tETCD\tKUBERNETES\tCLUSTER API")
		for _, m := range rows {
			id := "-"
			if m.Server != 0 {
				id = fmt.Sprint(m.Server)
			}
			cloud := m.Cloud
			if cloud == "" {
				cloud = "-"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", id, cloud, all(m.Members), all(m.Nodes), all(m.Machines))
		}
		if err := t.Flush(); err != nil && p.err == nil {
			p.err = err
		}
	}
	if len(agree) > 0 {
		p.f("%s\n", agreeing(agree))
	}
}

// agreeing folds the machines that agree into a line that stays readable where they are many.
func agreeing(names []string) string {
	const most = 8
	what := "machines agree"
	if len(names) == 1 {
		what = "machine agrees"
	}
	shown := names[:min(len(names), most)]
	text := fmt.Sprintf("%d %s: %s", len(names), what, strings.Join(shown, ", "))
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func all(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}
