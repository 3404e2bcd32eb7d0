package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/nametag-boot/nametag/internal/cli"
)

// auditor is the program that has the commands which speak to clusters. Their clients are large, and so they are a program, and a
// module, of their own.
const auditor = "nametag-audit"

// clusterCommands are those of the auditor, to be called here by the one name that a user knows.
func clusterCommands() []*cobra.Command {
	return []*cobra.Command{
		clusterCommand("audit", nil, "Compare the names of every machine in the cloud, in etcd, in Kubernetes and in Cluster API",
			"  nametagctl audit --kubeconfig kubeconfig --talosconfig talosconfig"),
		clusterCommand("pin", []string{"pin"}, "Make the name that a Talos node has its own for good",
			"  nametagctl pin set -n 10.0.0.2"),
		clusterCommand("capi", []string{"capi"}, "Say which names the nodes will get that manifests of Cluster API make",
			"  kustomize build . | nametagctl capi check -"),
	}
}

// clusterCommand hands everything behind its name to the auditor, whose help and exit status it has.
func clusterCommand(name string, first []string, short, example string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Example: example,
		Long: short + ".\n\nThis is " + auditor + ", which is looked for beside nametagctl and then in the PATH; the flags, and the exit status, are its own:\n" +
			"'nametagctl " + name + " --help' shows them.",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			program, err := findAuditor()
			if err != nil {
				return &cli.Error{Status: cli.Failed, Err: err}
			}
			argv := append(append([]string{auditor}, first...), args...)
			err = become(program, argv) // comes back only where it failed
			return &cli.Error{Status: cli.Failed, Err: fmt.Errorf("%s: %w", program, err)}
		},
	}
}

// findAuditor looks beside this program, then in the PATH.
func findAuditor() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), auditor)
	if found, err := exec.LookPath(beside); err == nil {
		return found, nil
	}
	found, err := exec.LookPath(auditor)
	if err != nil {
		return "", errors.New(auditor + " is neither beside nametagctl nor in the PATH: it comes with a release, and 'make audit' builds it into bin/")
	}
	return filepath.Abs(found)
}
