package talos

import (
	"context"
	"fmt"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/siderolabs/gen/optional"
	"github.com/siderolabs/talos/pkg/machinery/resources/network"
	"go.uber.org/zap"
)

// DefaultHostnameController stands for the part of Talos' HostnameConfigController that invents a name where nothing else
// gives one. What is new in it is the input, and Allowed.
type DefaultHostnameController struct {
	// Invented is the name: talos-xxx-xxx.
	Invented string
}

// Allowed reports whether a name may be invented: not while one is waited for, nor before it is known whether one is.
func Allowed(ctx context.Context, r controller.Reader) (bool, error) {
	wait, err := safe.ReaderGetByID[*HostnameWait](ctx, r, HostnameWaitID)
	if state.IsNotFoundError(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the wait: %w", err)
	}
	return !wait.TypedSpec().Pending, nil
}

// Name implements controller.Controller interface.
func (ctrl *DefaultHostnameController) Name() string { return "network.DefaultHostnameController" }

// Inputs implements controller.Controller interface.
func (ctrl *DefaultHostnameController) Inputs() []controller.Input {
	return []controller.Input{
		{Namespace: network.NamespaceName, Type: HostnameWaitType, ID: optional.Some(HostnameWaitID), Kind: controller.InputWeak},
	}
}

// Outputs implements controller.Controller interface.
func (ctrl *DefaultHostnameController) Outputs() []controller.Output {
	return []controller.Output{{Type: network.HostnameSpecType, Kind: controller.OutputShared}}
}

// Run implements controller.Controller interface.
func (ctrl *DefaultHostnameController) Run(ctx context.Context, r controller.Runtime, _ *zap.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.EventCh():
		}
		allowed, err := Allowed(ctx, r)
		if err != nil {
			return err
		}
		if !allowed {
			continue
		}
		spec := network.NewHostnameSpec(network.ConfigNamespaceName, network.LayeredID(network.ConfigDefault, network.HostnameID))
		if err := safe.WriterModify(ctx, r, spec, func(res *network.HostnameSpec) error {
			res.TypedSpec().ConfigLayer = network.ConfigDefault
			return res.TypedSpec().ParseFQDN(ctrl.Invented)
		}); err != nil {
			return fmt.Errorf("writing the default hostname: %w", err)
		}
	}
}
