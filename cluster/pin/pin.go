package pin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/talosapi"
)

// Talos is what is asked of a node; *talosapi.Client is one.
type Talos interface {
	Identity(ctx context.Context, node string) (talosapi.Identity, error)
	Version(ctx context.Context, node string) (string, error)
	MachineConfig(ctx context.Context, node string) ([]byte, error)
	Apply(ctx context.Context, node string, configuration []byte, try bool) ([]string, error)
}

// A DisagreementError is a node whose name is not everywhere the same: to pin it would make a wrong name last.
type DisagreementError struct {
	Node string
	Why  string
}

func (e *DisagreementError) Error() string {
	return fmt.Sprintf("%s: not pinned: %s", e.Node, e.Why)
}

// A Plan is a change that a node's machine configuration would get.
type Plan struct {
	Node string
	Name string
	Form Form
	Diff string // "" where there is nothing to change
	// Said is what the node has to say of the change.
	Said []string

	changed []byte
}

// PlanSet makes the plan of a pin: the node's own hostname, its platform's metadata and the cloud must agree. servers are the cloud's,
// nil where it is not to be asked. The node itself checks the change; nothing is changed yet.
func PlanSet(ctx context.Context, talos Talos, node string, servers []audit.Server) (*Plan, error) {
	id, err := talos.Identity(ctx, node)
	if err != nil {
		return nil, err
	}
	if err := agree(node, id, servers); err != nil {
		return nil, err
	}
	version, err := talos.Version(ctx, node)
	if err != nil {
		return nil, fmt.Errorf("%s: its version: %w", node, err)
	}
	before, err := talos.MachineConfig(ctx, node)
	if err != nil {
		return nil, err
	}
	p := &Plan{Node: node, Name: id.Hostname}
	var pinned string
	if pinned, p.Form, err = Hostname(before); err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	if pinned == id.Hostname {
		return p, nil
	}
	p.changed, err = Set(before, id.Hostname, version)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	if _, p.Form, err = Hostname(p.changed); err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	p.Diff = Diff(before, p.changed)
	return p, p.try(ctx, talos)
}

// PlanClear makes the plan of the end of a pin.
func PlanClear(ctx context.Context, talos Talos, node, auto string) (*Plan, error) {
	before, err := talos.MachineConfig(ctx, node)
	if err != nil {
		return nil, err
	}
	p := &Plan{Node: node}
	if p.Name, p.Form, err = Hostname(before); err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	if p.Name == "" {
		return p, nil
	}
	if p.changed, err = Clear(before, auto); err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	p.Diff = Diff(before, p.changed)
	return p, p.try(ctx, talos)
}

// try has the node check the change.
func (p *Plan) try(ctx context.Context, talos Talos) error {
	said, err := talos.Apply(ctx, p.Node, p.changed, true)
	if err != nil {
		return fmt.Errorf("%s: it refuses the change: %w", p.Node, err)
	}
	p.Said = said
	return nil
}

// Apply carries a plan out, without a reboot, and reads back what the node has then.
func (p *Plan) Apply(ctx context.Context, talos Talos) error {
	if p.Diff == "" {
		return nil
	}
	if _, err := talos.Apply(ctx, p.Node, p.changed, false); err != nil {
		return fmt.Errorf("%s: %w", p.Node, err)
	}
	now, err := talos.MachineConfig(ctx, p.Node)
	if err != nil {
		return err
	}
	want, _, err := Hostname(p.changed)
	if err != nil {
		return err
	}
	if got, _, err := Hostname(now); err != nil || got != want {
		return errors.Join(fmt.Errorf("%s: it took the change, and its configuration has the hostname %q, not %q", p.Node, got, want), err)
	}
	return nil
}

// agree compares a node's name with what its platform and the cloud say.
func agree(node string, id talosapi.Identity, servers []audit.Server) error {
	refuse := func(format string, args ...any) error {
		return &DisagreementError{Node: node, Why: fmt.Sprintf(format, args...)}
	}
	switch {
	case id.Hostname == "":
		return refuse("it has no hostname yet")
	case id.Platform != "hcloud":
		return refuse("its platform is %q, and not hcloud: nobody vouches for its name", id.Platform)
	case id.Announced == "":
		return refuse("its platform has not told it a hostname (the metadata service does not answer): %s may be one that was invented", id.Hostname)
	case !same(id.Hostname, id.Announced):
		return refuse("its hostname is %s, and the metadata service says %s", id.Hostname, id.Announced)
	}
	serverID, ok := audit.ServerID("hcloud://" + id.InstanceID)
	if !ok {
		return refuse("its instance id is %q, which is none of Hetzner Cloud", id.InstanceID)
	}
	if servers == nil {
		return nil
	}
	for _, s := range servers {
		if s.ID != serverID {
			continue
		}
		if !same(id.Hostname, s.Name) {
			return refuse("its hostname is %s, and server %d is named %s in the cloud; name it back first (hcloud server update %d --name %s)", id.Hostname, s.ID, s.Name, s.ID, id.Hostname)
		}
		return nil
	}
	return refuse("the cloud has no server %d: is the token one of its project?", serverID)
}

// same compares names as DNS does.
func same(a, b string) bool { return strings.EqualFold(a, b) }
