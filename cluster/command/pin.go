package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/pin"
	"github.com/nametag-boot/nametag/cluster/source"
	"github.com/nametag-boot/nametag/cluster/talosapi"
)

const pinLong = `Make the name that a Talos node has its own for good: as an explicit hostname in its machine configuration. From then on a
rename in the cloud changes nothing, and later boots wait for nobody.

The nodes, endpoints and credentials are those of a talosconfig, as talosctl has them; the role os:admin is needed.`

const pinStatuses = `The exit status is 0 where it is done, or nothing was to be done; 1 where a node was refused or failed, or the question was
answered with no; 2 where the command line is not understood.`

func pinCommand(version string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "pin", Short: "Make the name that a Talos node has its own for good", Long: pinLong + "\n\n" + pinStatuses,
		Example: `  nametagctl pin show -n 10.0.0.2,10.0.0.3
  HCLOUD_TOKEN=… nametagctl pin set -n 10.0.0.2
  nametagctl pin clear -n 10.0.0.2 --auto off`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%q is no command of pin: choose set, show or clear", args[0])
			}
			return usage("pin: choose set, show or clear")
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(pinSetCommand(version), pinShowCommand(), pinClearCommand())
	return cmd
}

// withNodes opens the API and gives every node to do. What fails with one does not keep it from the others.
func withNodes(cmd *cobra.Command, w *where, do func(context.Context, *talosapi.Client, string) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), w.timeout)
	defer cancel()
	c, err := talosapi.Open(ctx, w.talos)
	if err != nil {
		return usage("pin: %w", err)
	}
	defer c.Close() //nolint:errcheck // what was asked for is here
	if len(c.Nodes()) == 0 {
		return usage("pin: which nodes? Name them with -n")
	}
	var failed []error
	for _, node := range c.Nodes() {
		if err := do(ctx, c, node); err != nil {
			failed = append(failed, err)
			fmt.Fprintf(cmd.ErrOrStderr(), "nametag-audit: %v\n", err)
		}
	}
	if len(failed) > 0 {
		return &exitError{status: exitFindings}
	}
	return nil
}

func pinShowCommand() *cobra.Command {
	var w where
	cmd := &cobra.Command{
		Use: "show", Short: "Show the names of nodes, and whether they are pinned", Args: noArguments, Long: "Show the names of nodes, and whether they are pinned.\n\n" + pinStatuses,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withNodes(cmd, &w, func(ctx context.Context, c *talosapi.Client, node string) error {
				id, err := c.Identity(ctx, node)
				if err != nil {
					return err
				}
				text, err := c.MachineConfig(ctx, node)
				if err != nil {
					return err
				}
				name, form, err := pin.Hostname(text)
				if err != nil {
					return fmt.Errorf("%s: %w", node, err)
				}
				state := "not pinned"
				if name != "" {
					state = fmt.Sprintf("pinned to %s by %s", name, form)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s (server %s, metadata %s)  %s\n", node, id.Hostname, id.InstanceID, id.Announced, state)
				return nil
			})
		},
	}
	w.talosFlags(cmd.Flags())
	cmd.Flags().DurationVar(&w.timeout, "timeout", source.DefaultTimeout, "how long all of it may take")
	return cmd
}

func pinSetCommand(version string) *cobra.Command {
	w := where{version: version}
	var yes, withoutCloud bool
	cmd := &cobra.Command{
		Use: "set", Short: "Pin the names that nodes have now", Args: noArguments,
		Long: `Pin the names that nodes have now. A node is refused whose hostname, metadata, instance id and server in the cloud do not agree, and it
is said why. The node checks the change first, the difference is shown, and then it is asked; the node is not rebooted.

` + pinStatuses,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var servers []audit.Server
			if !withoutCloud {
				cloud, err := w.cloud()
				if err != nil {
					return err
				}
				if cloud == nil {
					return usage("pin set compares with the cloud: set HCLOUD_TOKEN, or name a file with --token-file; --without-cloud takes the metadata's word for it")
				}
				snapshot, reports := source.Collect(cmd.Context(), []source.Reader{cloud}, w.timeout)
				if !snapshot.Read[audit.Cloud] {
					return &exitError{exitFindings, fmt.Errorf("the cloud: %s", reports[0].Error)}
				}
				servers = snapshot.Servers
				if servers == nil {
					servers = []audit.Server{} // an empty project vouches for nobody
				}
			}
			ask := asker(cmd, yes)
			return withNodes(cmd, &w, func(ctx context.Context, c *talosapi.Client, node string) error {
				p, err := pin.PlanSet(ctx, c, node, servers)
				if err != nil {
					return err
				}
				return carryOut(ctx, cmd, c, p, "is pinned to "+p.Name+" already", "is pinned to "+p.Name+" now", ask)
			})
		},
	}
	f := cmd.Flags()
	w.talosFlags(f)
	w.cloudFlags(f)
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.BoolVar(&withoutCloud, "without-cloud", false, "do not compare with the cloud")
	f.DurationVar(&w.timeout, "timeout", 5*source.DefaultTimeout, "how long all of it may take, your answers included")
	return cmd
}

func pinClearCommand() *cobra.Command {
	var w where
	var yes bool
	var auto string
	cmd := &cobra.Command{
		Use: "clear", Short: "Take the explicit hostnames of nodes away", Args: noArguments,
		Long: "Take the explicit hostnames of nodes away: their names are again what the cloud says.\n\n" + pinStatuses,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if auto != "stable" && auto != "off" {
				return usage("--auto: %q: choose stable or off", auto)
			}
			ask := asker(cmd, yes)
			return withNodes(cmd, &w, func(ctx context.Context, c *talosapi.Client, node string) error {
				p, err := pin.PlanClear(ctx, c, node, auto)
				if err != nil {
					return err
				}
				return carryOut(ctx, cmd, c, p, "is not pinned", "is not pinned any more", ask)
			})
		},
	}
	f := cmd.Flags()
	w.talosFlags(f)
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.StringVar(&auto, "auto", "stable", "what a HostnameConfig says then: stable (Talos invents a name while none is known) or off (it waits)")
	f.DurationVar(&w.timeout, "timeout", 5*source.DefaultTimeout, "how long all of it may take, your answers included")
	return cmd
}

// carryOut shows a plan, asks, and does it.
func carryOut(ctx context.Context, cmd *cobra.Command, c *talosapi.Client, p *pin.Plan, already, done string, ask func(string) (bool, error)) error {
	out := cmd.OutOrStdout()
	if p.Diff == "" {
		fmt.Fprintf(out, "%s %s\n", p.Node, already)
		return nil
	}
	fmt.Fprintf(out, "%s: its machine configuration, %s:\n%s", p.Node, p.Form, p.Diff)
	for _, s := range p.Said {
		fmt.Fprintf(out, "%s says: %s\n", p.Node, s)
	}
	ok, err := ask(fmt.Sprintf("Apply this to %s, without a reboot?", p.Node))
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s: nothing was changed", p.Node)
	}
	if err := p.Apply(ctx, c); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s\n", p.Node, done)
	return nil
}

// asker asks on a terminal; a script must say --yes.
func asker(cmd *cobra.Command, yes bool) func(string) (bool, error) {
	in := bufio.NewReader(cmd.InOrStdin())
	return func(question string) (bool, error) {
		if yes {
			return true, nil
		}
		if f, ok := cmd.InOrStdin().(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
			return false, errors.New("nobody to ask: standard input is no terminal; --yes does it without a question")
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s [y/N] ", question)
		answer, err := in.ReadString('\n')
		if err != nil && answer == "" {
			return false, fmt.Errorf("no answer: %w", err)
		}
		answer = strings.ToLower(strings.TrimSpace(answer))
		return answer == "y" || answer == "yes", nil
	}
}
