// Package talos is how Talos could wait for a node's name by itself: a controller in its conventions, and the three lines
// by which the default name is held back.
package talos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/safe"
	goprocfs "github.com/siderolabs/go-procfs/procfs"
	"github.com/siderolabs/talos/pkg/machinery/resources/network"
	"go.uber.org/zap"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/procfs"
)

// HostnameWaitController waits for the name that the cloud gives, as the kernel argument talos.hostname.wait= says, and
// puts it into the platform layer. Until it is there, HostnameWait keeps the default name back.
type HostnameWaitController struct {
	Cmdline *goprocfs.Cmdline
	// Resolve finds the name. nil: by the metadata service of Hetzner Cloud, over the network that Talos has brought up.
	Resolve func(context.Context) (*identity.Identity, error)
	// Then carries out what the argument says for the case that there is no name in time: a reboot or a power-off, by the
	// sequencer in Talos.
	Then func(context.Context, procfs.Then) error

	began time.Time // of the wait: a controller that is started again goes on with the same bound
}

// ID is the spec's, beside the one of the platform's own configuration, which belongs to another controller.
const ID = "nametag"

// Name implements controller.Controller interface.
func (ctrl *HostnameWaitController) Name() string { return "network.HostnameWaitController" }

// Inputs implements controller.Controller interface.
func (ctrl *HostnameWaitController) Inputs() []controller.Input { return nil }

// Outputs implements controller.Controller interface.
func (ctrl *HostnameWaitController) Outputs() []controller.Output {
	return []controller.Output{
		{Type: HostnameWaitType, Kind: controller.OutputExclusive},
		{Type: network.HostnameSpecType, Kind: controller.OutputShared},
	}
}

// Run implements controller.Controller interface.
func (ctrl *HostnameWaitController) Run(ctx context.Context, r controller.Runtime, logger *zap.Logger) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.EventCh():
	}
	if ctrl.began.IsZero() {
		ctrl.began = time.Now()
	}
	line, err := procfs.Parse(ctrl.Cmdline)
	if err != nil {
		logger.Error("the kernel argument is malformed, going by the default policy", zap.Error(err), zap.Stringer("policy", line.Policy))
	}
	if reason := nothingToWaitFor(line); reason != "" {
		return ctrl.publish(ctx, r, false, reason)
	}
	if err := ctrl.publish(ctx, r, true, line.Policy.String()); err != nil {
		return err
	}
	id, err := ctrl.resolve(ctx, line.Policy)
	var elsewhere *identity.NotPresentError
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // the runtime ends us, and asks for no reason
	case errors.As(err, &elsewhere):
		return ctrl.publish(ctx, r, false, err.Error())
	case err != nil:
		return ctrl.giveUp(ctx, r, logger, line.Policy.Then, err)
	}
	spec := network.NewHostnameSpec(network.ConfigNamespaceName, network.LayeredID(network.ConfigPlatform, ID))
	if err := safe.WriterModify(ctx, r, spec, func(res *network.HostnameSpec) error {
		res.TypedSpec().ConfigLayer = network.ConfigPlatform
		return res.TypedSpec().ParseFQDN(id.Hostname)
	}); err != nil {
		return fmt.Errorf("writing the hostname: %w", err)
	}
	logger.Info("the node's name", zap.String("hostname", id.Hostname), zap.String("instance", id.InstanceID))
	return ctrl.publish(ctx, r, false, "the name is there")
}

// nothingToWaitFor says why the default name need not be held back; empty: it must be.
func nothingToWaitFor(line procfs.CommandLine) string {
	switch line.Decide("hcloud") {
	case procfs.DecisionNotAsked, procfs.DecisionOff:
		return "nobody asks to wait"
	case procfs.DecisionNamed:
		return line.HostnameFrom + " names the node"
	case procfs.DecisionElsewhere:
		return "another platform: " + line.Platform
	}
	return ""
}

// resolve finds the name within what is left of the policy's bound.
func (ctrl *HostnameWaitController) resolve(ctx context.Context, policy procfs.Policy) (*identity.Identity, error) {
	ctx, cancel := policy.WithDeadline(ctx, ctrl.began)
	defer cancel()
	if ctrl.Resolve != nil {
		return ctrl.Resolve(ctx)
	}
	resolver := identity.Resolver{Source: hetzner.Source(), Host: true, Minimal: true, Unproven: policy.ID == procfs.IDUnproven}
	return resolver.Resolve(ctx)
}

// giveUp does what the policy says.
func (ctrl *HostnameWaitController) giveUp(ctx context.Context, r controller.Runtime, logger *zap.Logger, then procfs.Then, why error) error {
	logger.Error("no name in time", zap.Error(why), zap.Stringer("then", then))
	switch then {
	case procfs.Continue: // the default name, as without all this
		return ctrl.publish(ctx, r, false, why.Error())
	case procfs.Halt: // nothing starts; the resource says why
		return ctrl.publish(ctx, r, true, why.Error())
	}
	return ctrl.Then(ctx, then)
}

func (ctrl *HostnameWaitController) publish(ctx context.Context, r controller.Runtime, pending bool, reason string) error {
	return safe.WriterModify(ctx, r, NewHostnameWait(), func(res *HostnameWait) error {
		*res.TypedSpec() = HostnameWaitSpec{Pending: pending, Reason: reason}
		return nil
	})
}
