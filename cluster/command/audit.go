package command

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/capi"
	"github.com/nametag-boot/nametag/cluster/form"
	"github.com/nametag-boot/nametag/cluster/memory"
	"github.com/nametag-boot/nametag/cluster/source"
	"github.com/nametag-boot/nametag/internal/output"
)

const auditLong = `Compare the names that every machine of a cluster has: in the cloud, in etcd, in Kubernetes and in Cluster API.

Every source that can be found is read, at the same time; nothing is changed. Machines are matched by the server's id and by
address, never by name. Each finding comes with what every source says of the machine, and with a remedy in an order that
never costs etcd its quorum.

The exit status is 0 where all agree; 1 where there are findings at or above --fail-on; 2 where the command line is not
understood; and 3 where a source could not be read, whatever the others say, or the report could not be printed.`

// auditOptions are those of one audit.
type auditOptions struct {
	where
	state, stateMap string
	grace           time.Duration
	failOn, output  string
	cluster         string
	watch           watchOptions
}

func auditCommand(version string) *cobra.Command {
	o := auditOptions{where: where{version: version}}
	cmd := &cobra.Command{
		Use:   "nametag-audit",
		Short: "Compare the names of every machine in the cloud, in etcd, in Kubernetes and in Cluster API",
		Long:  auditLong,
		Example: `  HCLOUD_TOKEN=… nametag-audit --kubeconfig kubeconfig --talosconfig talosconfig
  nametag-audit -o json --fail-on critical
  nametag-audit --state names.json    # remembers each server's first name`,
		Version:       version,
		SilenceErrors: true, SilenceUsage: true,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd) },
	}
	f := cmd.Flags()
	o.flags(f)
	o.memoryFlags(f.StringVar)
	o.watchFlags(cmd)
	f.DurationVar(&o.grace, "grace", audit.DefaultGrace, "how long a machine may take to be complete before it is a finding")
	f.StringVar(&o.failOn, "fail-on", string(audit.Warning), "the least severity that makes the exit status 1: info, warning, critical")
	f.StringVarP(&o.output, "output", "o", "table", strings.Join(form.Names(), ", "))
	f.StringVar(&o.cluster, "cluster", "", "the Cluster of Cluster API to look at, NAMESPACE/NAME (default: the one whose Machines are the nodes)")
	return cmd
}

func (o *auditOptions) memoryFlags(add func(*string, string, string, string)) {
	add(&o.state, "state", "", "remember the first name of every server in this file, and tell of renames")
	add(&o.stateMap, "state-configmap", "", "remember them in this ConfigMap, NAMESPACE/NAME")
}

// noArguments refuses every argument.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%q is no command; '%s --help' lists them", args[0], cmd.CommandPath())
	}
	return nil
}

func (o *auditOptions) run(ctx context.Context, cmd *cobra.Command) error {
	failOn, err := audit.ParseSeverity(o.failOn)
	if err != nil {
		return usage("--fail-on: %w", err)
	}
	if !slices.Contains(form.Names(), o.output) {
		return usage("--output: %q is no form: choose %s", o.output, strings.Join(form.Names(), ", "))
	}
	if o.watch.on {
		return o.runWatch(ctx, cmd)
	}
	readers, err := o.readers()
	if err != nil {
		return err
	}
	store, err := o.store()
	if err != nil {
		return err
	}
	report, err := once(ctx, readers, o.timeout, store, &audit.Auditor{Grace: o.grace, Cluster: o.cluster})
	if err != nil {
		return &exitError{exitSource, err}
	}
	out := cmd.OutOrStdout()
	if err := form.Write(out, o.output, report, colour(out)); err != nil {
		return &exitError{exitSource, err}
	}
	switch {
	case len(report.Failed()) > 0:
		return &exitError{status: exitSource}
	case report.Worst() != "" && report.Worst().AtLeast(failOn):
		return &exitError{status: exitFindings}
	}
	return nil
}

// once is one round.
func once(ctx context.Context, readers []source.Reader, timeout time.Duration, store memory.Store, auditor *audit.Auditor) (*audit.Report, error) {
	if store != nil {
		m, err := store.Load(ctx)
		if err != nil {
			return nil, err
		}
		auditor.Memory = m
	}
	snapshot, sources := source.Collect(ctx, readers, timeout)
	report := auditor.Audit(snapshot)
	report.Sources = sources
	if store != nil {
		if err := store.Save(ctx, auditor.Memory); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// store is where the memory is kept, nil where it is not.
func (o *auditOptions) store() (memory.Store, error) {
	switch {
	case o.state != "" && o.stateMap != "":
		return nil, usage("--state and --state-configmap: choose one")
	case o.state != "":
		return memory.File(o.state), nil
	case o.stateMap != "":
		namespace, name, ok := strings.Cut(o.stateMap, "/")
		if !ok || namespace == "" || name == "" {
			return nil, usage("--state-configmap: %q is not NAMESPACE/NAME", o.stateMap)
		}
		config, err := o.needKube("--state-configmap")
		if err != nil {
			return nil, err
		}
		return &memory.ConfigMap{Config: config, Namespace: namespace, Name: name}, nil
	}
	return nil, nil //nolint:nilnil // no memory is a choice
}

// colour reports whether the output is a terminal that wants it.
func colour(out any) bool {
	if p, ok := out.(*output.Page); ok {
		out = p.To
	}
	f, ok := out.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}

func acceptCommand(version string) *cobra.Command {
	o := auditOptions{where: where{version: version}}
	cmd := &cobra.Command{
		Use:   "accept SERVER",
		Short: "Take the name that a server has now in the cloud for its own, from now on",
		Long: `Take the name that a server has now in the cloud for its own, from now on. SERVER is its id or its present name.

The exit status is 0 where it is done, 2 where the command line is not understood, 3 where the cloud or the memory could not be
read.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("accept: give one SERVER; '%s --help' shows how", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := o.store()
			if err != nil {
				return err
			}
			if store == nil {
				return usage("accept: where are the names remembered? Give --state or --state-configmap, as for the audit")
			}
			cloud, err := o.cloud()
			if err != nil {
				return err
			}
			if cloud == nil {
				return usage("accept: set HCLOUD_TOKEN, or name a file with --token-file")
			}
			return accept(cmd, store, cloud, args[0])
		},
	}
	f := cmd.Flags()
	o.cloudFlags(f)
	o.memoryFlags(f.StringVar)
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "the file (default: as kubectl)")
	f.StringVar(&o.context, "context", "", "its context")
	return cmd
}

func accept(cmd *cobra.Command, store memory.Store, cloud *source.Cloud, which string) error {
	ctx := cmd.Context()
	m, err := store.Load(ctx)
	if err != nil {
		return &exitError{exitSource, err}
	}
	snapshot, reports := source.Collect(ctx, []source.Reader{cloud}, 0)
	if !snapshot.Read[audit.Cloud] {
		return &exitError{exitSource, fmt.Errorf("the cloud: %s", reports[0].Error)}
	}
	server, before, err := m.Accept(snapshot.Servers, which)
	if err != nil {
		return &exitError{exitFindings, err}
	}
	if err := store.Save(ctx, m); err != nil {
		return &exitError{exitSource, err}
	}
	switch before {
	case "", server.Name:
		fmt.Fprintf(cmd.OutOrStdout(), "server %d is %s\n", server.ID, server.Name)
	default:
		fmt.Fprintf(cmd.OutOrStdout(), "server %d is %s from now on, and was %s\n", server.ID, server.Name, before)
	}
	return nil
}

func catalogueCommand() *cobra.Command {
	return &cobra.Command{
		Use: "findings", Short: "List the kinds of findings", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, k := range audit.Catalogue() {
				fmt.Fprintf(cmd.OutOrStdout(), "%-25s %s\n", k.ID, k.Meaning)
			}
			return nil
		},
	}
}

func schemaCommand() *cobra.Command {
	schemas := map[string]func() []byte{"audit": audit.JSONSchema, "capi": capi.JSONSchema}
	return &cobra.Command{
		Use: "schema [audit|capi]", Short: "Print the JSON Schema of what -o json says",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && schemas[args[0]] == nil {
				return usage("schema: choose audit (the default) or capi")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := cmd.OutOrStdout().Write(schemas[append(args, "audit")[0]]())
			return err
		},
	}
}
