//go:build linux

package controlplane_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// A system is what a virtual machine boots: its root, and what it calls itself where nobody gives it a name.
type system struct {
	name, debian string
	invents      string // begins with it
}

// theSystems are one that is shaped like a Talos, whose first process is nametag, and a Debian with nametag's package.
func theSystems(t *testing.T) []system {
	t.Helper()
	required(t)
	qemu.Need(t, qemu.AMD64)
	debian := os.Getenv(debianRoot)
	if debian == "" {
		netns.Missing(t, "no root of a Debian: hack/os-deps")
	}
	return []system{{name: "Talos-shaped", invents: "talos-"}, {name: "Debian", debian: debian, invents: "localhost"}}
}

func (s *scene) machine(of system, policy string) *controlplane.Server {
	s.t.Helper()
	server := s.create(one)
	server.Metadata(false)
	if err := server.BootMachine(s.t.Context(), policy, of.debian); err != nil {
		s.t.Fatal(err)
	}
	s.controllers(server)
	return server
}

// Whole machines, from their kernel on, without nametag. That they go wrong shows that the test below can fail.
func TestAMachineWithoutNametagRegistersUnderWhateverItCallsItself(t *testing.T) {
	for _, system := range theSystems(t) {
		t.Run(system.name, func(t *testing.T) {
			s := aCluster(t)
			server := s.machine(system, "")
			s.becomes("the services have started", func() (bool, error) { return server.Named() != "", nil })
			invented := server.Named()
			if !strings.HasPrefix(invented, system.invents) {
				t.Fatalf("the services start as %q", invented)
			}
			s.members(server, invented)
			s.becomes("a node is ready under that name, and no server is found for it", func() (bool, error) {
				nodes, err := s.Nodes(t.Context(), server)
				return err == nil && len(nodes) == 1 && nodes[0].Name == invented && nodes[0].Ready && nodes[0].Uninitialized, err
			})
			if users, err := server.NodeUsers(); err != nil || !slices.Equal(users, []string{invented}) {
				t.Errorf("the audit log has the nodes %q, %v", users, err)
			}
		})
	}
}

// Nothing else is read than what etcd and the API server say, and the API server's audit log.
func TestAMachineWithNametagHasItsServersNameFromTheFirstMoment(t *testing.T) {
	for _, system := range theSystems(t) {
		t.Run(system.name, func(t *testing.T) {
			s := aCluster(t)
			server := s.machine(system, "60m")
			s.becomes("it asks and waits", func() (bool, error) { return server.Asked() > 4, s.nothingRuns(server) })
			server.Metadata(true)
			s.members(server, one)
			s.ready(server, one)
			s.serves(server, one)
			s.onlyNames(server, one)
		})
	}
}
