package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/capi"
	"github.com/nametag-boot/nametag/cluster/source"
)

const capiLong = `Say which name every node will get that is made of manifests of Cluster API, Talos and Hetzner Cloud, from where, and what is wrong
with that. FILE may have many documents and lists; - is standard input. Each finding has its line and, where there is one, a fix as a
patch. With --live the objects of a management cluster are read; nothing is changed there.

Which images have nametag in them the manifests cannot say: those with nametag in their name, or those that --nametag-image names.

The exit status is 0 where nothing is wrong; 1 where there are findings at or above --fail-on; 2 where the command line is not
understood; and 3 where a file or the cluster could not be read, or the report could not be printed.`

func capiCommand(version string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "capi", Short: "Look at the names that Cluster API will give",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%q is no command of capi: it has check", args[0])
			}
			return usage("capi: it has check")
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	var output, failOn string
	var images []string
	var live liveOptions
	check := &cobra.Command{
		Use: "check FILE…|-|--live", Short: "Check manifests for the names that they will give", Long: capiLong,
		Example: `  kustomize build . | nametagctl capi check -
  nametagctl capi check --live --context management`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && !live.on:
				return usage("capi check: give a FILE, - for standard input, or --live; '%s --help' shows how", cmd.CommandPath())
			case len(args) > 0 && live.on:
				return usage("capi check: FILE or --live: choose one")
			case !live.on && (live.kubeconfig != "" || live.context != "" || live.namespace != ""):
				return usage("capi check: --kubeconfig, --context and --namespace are for --live")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			least, err := audit.ParseSeverity(failOn)
			if err != nil {
				return usage("--fail-on: %w", err)
			}
			if !slices.Contains([]string{"text", "json", "sarif"}, output) {
				return usage("--output: %q is no form: choose text, json or sarif", output)
			}
			c := &capi.Checker{Options: capi.Options{Images: images}}
			for _, name := range args {
				if err := addFile(cmd, c, name); err != nil {
					return &exitError{exitSource, err}
				}
			}
			what := strings.Join(args, ", ")
			if live.on {
				what = "the management cluster"
				if err := live.add(cmd.Context(), c); err != nil {
					return err
				}
			}
			r := c.Check()
			if len(r.Names) == 0 {
				return &exitError{exitSource, fmt.Errorf("%s: no TalosControlPlane, TalosConfigTemplate or TalosConfig in it", what)}
			}
			if err := writeCAPI(cmd.OutOrStdout(), output, c, r, version); err != nil {
				return &exitError{exitSource, err}
			}
			for _, f := range r.Findings {
				if f.Severity.AtLeast(least) {
					return &exitError{status: exitFindings}
				}
			}
			return nil
		},
	}
	f := check.Flags()
	f.StringVarP(&output, "output", "o", "text", "text, json, sarif")
	f.StringVar(&failOn, "fail-on", string(audit.Warning), "the least severity that makes the exit status 1: info, warning, critical")
	f.BoolVar(&live.on, "live", false, "look at the objects of a management cluster, in the place of a FILE")
	f.StringVar(&live.kubeconfig, "kubeconfig", "", "with --live: the file (default: $KUBECONFIG, ~/.kube/config, then the pod's own account)")
	f.StringVar(&live.context, "context", "", "with --live: the kubeconfig's context (default: the current one)")
	f.StringVarP(&live.namespace, "namespace", "n", "", "with --live: only this namespace (default: all)")
	f.DurationVar(&live.timeout, "timeout", source.DefaultTimeout, "with --live: how long it may take")
	f.StringSliceVar(&images, "nametag-image", nil, "a pattern of images that have nametag in them")
	cmd.AddCommand(check)
	return cmd
}

// liveOptions say which management cluster is looked at.
type liveOptions struct {
	on                             bool
	kubeconfig, context, namespace string
	timeout                        time.Duration
}

// add takes in the objects of the management cluster, each as a file of its own that is as kubectl shows it.
func (l *liveOptions) add(ctx context.Context, c *capi.Checker) error {
	config, err := kube(l.kubeconfig, l.context)
	if err != nil {
		return err
	}
	if config == nil {
		return usage("--live needs a kubeconfig: --kubeconfig, $KUBECONFIG or ~/.kube/config")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, fmt.Errorf("no whole answer in %s", l.timeout))
	defer cancel()
	manifests, err := source.Manifests(ctx, config, l.namespace)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return &exitError{exitSource, fmt.Errorf("the management cluster: %w", err)}
	}
	for _, m := range manifests {
		if err := c.Add(m.Name, m.Text); err != nil {
			return &exitError{exitSource, err}
		}
	}
	return nil
}

// most is what a file of manifests may have.
const most = 64 << 20

func addFile(cmd *cobra.Command, c *capi.Checker, name string) error {
	in, label := cmd.InOrStdin(), "stdin"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in, label = f, name
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	if len(text) > most {
		return fmt.Errorf("%s: more than %d MiB", label, most>>20)
	}
	return c.Add(label, text)
}

func writeCAPI(w io.Writer, form string, c *capi.Checker, r *capi.Result, version string) error {
	switch form {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case "sarif":
		b, err := capi.SARIF(r, version)
		if err != nil {
			return err
		}
		_, err = w.Write(append(b, '\n'))
		return err
	}
	for _, n := range r.Names {
		fmt.Fprintf(w, "%s:%d: %s\n  name: %s\n  from: %s\n", n.File, n.Line, n.Object, n.Name, n.From)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n%s:%d:%d: %s: %s\n  %s: %s\n", f.File, f.Line, f.Column, f.Severity, f.Rule, f.Object, f.Message)
		if f.Fix != nil {
			fmt.Fprint(w, capi.Diff(f.File, c.File(f.File), *f.Fix))
		}
	}
	text := "no findings"
	if len(r.Findings) > 0 {
		text = fmt.Sprintf("findings: %d", len(r.Findings))
	}
	_, err := fmt.Fprintf(w, "\n%s\n", text)
	return err
}
