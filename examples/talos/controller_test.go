package talos_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/cosi-project/runtime/pkg/state/impl/inmem"
	"github.com/cosi-project/runtime/pkg/state/impl/namespaced"
	goprocfs "github.com/siderolabs/go-procfs/procfs"
	"github.com/siderolabs/talos/pkg/machinery/resources/network"
	"go.uber.org/zap/zaptest"

	"github.com/nametag-boot/nametag/examples/talos"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/procfs"
)

const (
	invented = "talos-8qy-c5p"
	patience = time.Minute // ends a test that would hang
)

// node is COSI's own runtime, in memory, with the two controllers.
type node struct {
	t     *testing.T
	state state.State

	mu   sync.Mutex
	then []procfs.Then
}

// answers are what Resolve comes to, once release is closed.
type answers struct {
	release chan struct{}
	name    string
	err     error
}

func (a answers) resolve(ctx context.Context) (*identity.Identity, error) {
	select {
	case <-a.release:
	case <-ctx.Done():
		return nil, &identity.TimeoutError{Source: "hetzner", Cause: context.Cause(ctx)}
	}
	if a.err != nil {
		return nil, a.err
	}
	return &identity.Identity{Hostname: a.name, InstanceID: "42"}, nil
}

func at(release bool, name string, err error) answers {
	a := answers{release: make(chan struct{}), name: name, err: err}
	if release {
		close(a.release)
	}
	return a
}

// start runs a node. others are specs that other controllers of Talos have written.
func start(t *testing.T, line string, a answers, others ...*network.HostnameSpec) *node {
	t.Helper()
	n := &node{t: t, state: state.WrapCore(namespaced.NewState(inmem.Build))}
	for _, o := range others {
		if err := n.state.Create(t.Context(), o, state.WithCreateOwner("network.PlatformConfigApplyController")); err != nil {
			t.Fatal(err)
		}
	}
	rt, err := runtime.NewRuntime(n.state, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	wait := &talos.HostnameWaitController{
		Cmdline: goprocfs.NewCmdline(line), Resolve: a.resolve,
		Then: func(_ context.Context, then procfs.Then) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.then = append(n.then, then)
			return nil
		},
	}
	if err := rt.RegisterController(wait); err != nil {
		t.Fatal(err)
	}
	if err := rt.RegisterController(&talos.DefaultHostnameController{Invented: invented}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rt.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return n
}

// waits waits for the wait to be, or not to be, pending.
func (n *node) waits(pending bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	_, err := n.state.WatchFor(ctx, talos.NewHostnameWait().Metadata(), state.WithCondition(func(r resource.Resource) (bool, error) {
		w, ok := r.(*talos.HostnameWait)
		return ok && w.TypedSpec().Pending == pending, nil
	}))
	if err != nil {
		n.t.Fatalf("the wait is not pending=%v: %v", pending, err)
	}
}

// says waits for the wait to give a reason.
func (n *node) says(reason string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	_, err := n.state.WatchFor(ctx, talos.NewHostnameWait().Metadata(), state.WithCondition(func(r resource.Resource) (bool, error) {
		w, ok := r.(*talos.HostnameWait)
		return ok && strings.Contains(w.TypedSpec().Reason, reason), nil
	}))
	if err != nil {
		n.t.Fatalf("the wait never says %q: %v", reason, err)
	}
}

// named waits for the name in a layer.
func (n *node) named(layer network.ConfigLayer, id, want string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	spec := network.NewHostnameSpec(network.ConfigNamespaceName, network.LayeredID(layer, id))
	r, err := n.state.WatchFor(ctx, spec.Metadata(), state.WithEventTypes(state.Created, state.Updated))
	if err != nil {
		n.t.Fatalf("no name in the layer %v: %v", layer, err)
	}
	got, ok := r.(*network.HostnameSpec)
	if !ok || got.TypedSpec().FQDN() != want || got.TypedSpec().ConfigLayer != layer {
		n.t.Errorf("layer %v: %+v, not %q", layer, got.TypedSpec(), want)
	}
}

// hasNo is for the end of a test: nothing has been written to the layer so far.
func (n *node) hasNo(layer network.ConfigLayer, id string) {
	n.t.Helper()
	_, err := safe.StateGet[*network.HostnameSpec](n.t.Context(), n.state, network.NewHostnameSpec(network.ConfigNamespaceName, network.LayeredID(layer, id)).Metadata())
	if !state.IsNotFoundError(err) {
		n.t.Errorf("the layer %v has a name: %v", layer, err)
	}
}

func (n *node) enforced() []procfs.Then {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.then
}

func TestALateNameComesBeforeAnInventedOne(t *testing.T) {
	a := at(false, "web-1.example.com", nil)
	n := start(t, "talos.platform=hcloud talos.hostname.wait=5m", a)
	n.waits(true)
	n.hasNo(network.ConfigDefault, network.HostnameID)
	close(a.release)
	n.named(network.ConfigPlatform, talos.ID, "web-1.example.com")
	n.waits(false)
	n.named(network.ConfigDefault, network.HostnameID, invented) // allowed by now, and below the platform's
}

func TestANameThatNeverComes(t *testing.T) {
	for then, pending := range map[string]bool{"continue": false, "halt": true} {
		n := start(t, "talos.hostname.wait=20ms,then="+then, at(false, "", nil))
		if then == "continue" {
			n.waits(false)
			n.named(network.ConfigDefault, network.HostnameID, invented)
		} else {
			n.says("no valid name from hetzner")
			n.waits(pending)
			n.hasNo(network.ConfigDefault, network.HostnameID)
		}
		n.hasNo(network.ConfigPlatform, talos.ID)
	}
	for _, then := range []procfs.Then{procfs.Reboot, procfs.PowerOff} {
		n := start(t, "talos.hostname.wait=20ms,then="+then.String(), at(false, "", nil))
		for deadline := time.Now().Add(patience); len(n.enforced()) == 0 && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if got := n.enforced(); len(got) == 0 || got[0] != then {
			t.Errorf("then=%v: %v", then, got)
		}
		n.hasNo(network.ConfigDefault, network.HostnameID)
		n.hasNo(network.ConfigPlatform, talos.ID)
	}
}

func TestAnswersThatAreRefused(t *testing.T) {
	t.Run("another cloud: the name is Talos' own", func(t *testing.T) {
		n := start(t, "talos.hostname.wait=5m", at(true, "", &identity.NotPresentError{Source: "hetzner"}))
		n.waits(false)
		n.named(network.ConfigDefault, network.HostnameID, invented)
	})
	t.Run("what is no name is never written", func(t *testing.T) {
		n := start(t, "talos.hostname.wait=5m", at(true, "", nil))
		n.waits(true)
		n.hasNo(network.ConfigPlatform, talos.ID)
		n.hasNo(network.ConfigDefault, network.HostnameID)
	})
}

func TestARenamedServer(t *testing.T) {
	// The name of the last boot, which Talos has kept on STATE: of the same layer, and another controller's.
	cached := network.NewHostnameSpec(network.ConfigNamespaceName, network.LayeredID(network.ConfigPlatform, network.HostnameID))
	cached.TypedSpec().ConfigLayer, cached.TypedSpec().Hostname = network.ConfigPlatform, "web-1"
	n := start(t, "talos.hostname.wait=5m", at(true, "web-2", nil), cached)
	n.named(network.ConfigPlatform, talos.ID, "web-2")
	n.waits(false)
	n.named(network.ConfigPlatform, network.HostnameID, "web-1") // not ours to change
}

func TestAnExplicitNameEndsTheMatter(t *testing.T) {
	for _, line := range []string{"talos.hostname.wait=5m talos.hostname=by-hand", "talos.hostname.wait=5m talos.platform=aws", "talos.hostname.wait=off", "quiet"} {
		n := start(t, line, at(true, "web-1", nil))
		n.waits(false)
		n.named(network.ConfigDefault, network.HostnameID, invented)
		n.hasNo(network.ConfigPlatform, talos.ID)
	}
}

func TestAMalformedArgumentWaits(t *testing.T) {
	n := start(t, "talos.hostname.wait=90", at(false, "", nil))
	n.waits(true)
	n.hasNo(network.ConfigDefault, network.HostnameID)
}
