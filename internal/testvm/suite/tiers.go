//go:build linux

package main

import "slices"

// vms are the packages whose tests boot virtual machines. They have the machine to themselves.
var vms = []string{"./internal/node/boot", "./internal/image/extension", "./internal/image/installer", "./internal/testvm/lab", "./internal/testvm/qemu/...", "./internal/testvm/talos/..."}

// systems are the boots of whole systems, which take minutes: make test-os.
var systems = []string{"./internal/testvm/systems"}

// waiting are packages whose tests mostly wait (a race build sleeps at each exit), or do nothing else: first in line, they
// wait beside the others.
var waiting = []string{"./internal/node/handover", "./internal/testvm/patience"}

// tiers are what make test runs, in order.
var tiers = []tier{
	{
		name: "unit", about: "vet; unit tests, fuzz seeds, network namespaces, with the race detector",
		before:   [][]string{{"go", "vet", "./..."}},
		packages: slices.Concat(waiting, []string{"./..."}, without(vms), without(systems)),
		flags:    []string{"-race", "-p", "6", "-timeout", "20m"},
	},
	{
		name: "cluster", about: "the auditor of names, with real etcd clusters",
		beside:   true,
		before:   [][]string{{"go", "vet", "./..."}},
		dir:      "cluster",
		packages: []string{"./..."}, flags: []string{"-timeout", "10m"},
	},
	{
		name: "deploy", about: "the auditor's chart, alert rules and dashboard, by Helm's, Prometheus' and Grafana's own code",
		before: [][]string{{"go", "vet", "./..."}},
		dir:    "cluster/deploy", packages: []string{"./..."}, flags: []string{"-timeout", "10m"},
	},
	{
		name: "release", about: "what makes a release",
		dir: "internal/release/dist", packages: []string{"./..."}, flags: []string{"-timeout", "10m"},
	},
	{
		name: "examples", about: "the example for Talos' own tree, on COSI's runtime",
		before: [][]string{{"go", "vet", "./..."}},
		dir:    "examples/talos", packages: []string{"./..."}, flags: []string{"-timeout", "10m"},
	},
	{
		name: "configs", about: "the examples for Fedora CoreOS, Flatcar, Kairos and MicroOS, by their own tools",
		before: [][]string{{"go", "vet", "./..."}},
		dir:    "examples/systems", packages: []string{"./..."}, flags: []string{"-timeout", "10m"},
	},
	{
		name: "vm", about: "boots of virtual machines",
		packages: vms,
		flags:    []string{"-timeout", "30m"},
	},
}

func without(packages []string) []string {
	var minus []string
	for _, p := range packages {
		minus = append(minus, "-"+p)
	}
	return minus
}
