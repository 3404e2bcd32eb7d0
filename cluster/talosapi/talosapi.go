// Package talosapi asks Talos nodes through their API, by the client of Talos' own machinery and a talosconfig as talosctl
// has it. What a node says of itself is read from the bare protobufs: so documents and resources of newer versions, which
// this client has never heard of, are no obstacle.
package talosapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/siderolabs/talos/pkg/machinery/api/machine"
	configpb "github.com/siderolabs/talos/pkg/machinery/api/resource/config"
	networkpb "github.com/siderolabs/talos/pkg/machinery/api/resource/definitions/network"
	runtimepb "github.com/siderolabs/talos/pkg/machinery/api/resource/definitions/runtime"
	"github.com/siderolabs/talos/pkg/machinery/client"
	"github.com/siderolabs/talos/pkg/machinery/client/config"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Access is how talosctl would be told which nodes are meant.
type Access struct {
	Talosconfig string   // a file; "" is talosctl's own search: $TALOSCONFIG, ~/.talos/config, /var/run/secrets/talos.dev/config
	Context     string   // "" is the current one
	Endpoints   []string // empty: the context's
	Nodes       []string // empty: the context's
}

// A Client speaks to the nodes.
type Client struct {
	talos *client.Client
	cosi  cosi.StateClient
	nodes []string
}

// Open makes a client. Nothing is sent yet.
func Open(ctx context.Context, a Access, options ...grpc.DialOption) (*Client, error) {
	conf, err := a.read()
	if err != nil {
		return nil, fmt.Errorf("talosconfig: %w", err)
	}
	name := cmp.Or(a.Context, conf.Context)
	chosen := conf.Contexts[name]
	if chosen == nil {
		return nil, fmt.Errorf("talosconfig: it has no context %q", name)
	}
	if len(a.Endpoints) == 0 && len(chosen.Endpoints) == 0 && len(a.Nodes) == 0 {
		return nil, fmt.Errorf("talosconfig: context %q has no endpoints; name some", name)
	}
	endpoints := a.Endpoints
	if len(endpoints) == 0 && len(chosen.Endpoints) == 0 {
		endpoints = a.Nodes // as talosctl does
	}
	opts := []client.OptionFunc{client.WithConfig(conf), client.WithContextName(name), client.WithDefaultGRPCDialOptions(), client.WithGRPCDialOptions(options...)}
	if len(endpoints) > 0 {
		opts = append(opts, client.WithEndpoints(endpoints...))
	}
	c, err := client.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("talos: %w", err)
	}
	nodes := a.Nodes
	if len(nodes) == 0 {
		nodes = chosen.Nodes
	}
	return &Client{talos: c, cosi: cosi.NewStateClient(c.Conn()), nodes: slices.Clone(nodes)}, nil
}

// read reads the talosconfig that was named, else the one that is found.
func (a Access) read() (*config.Config, error) {
	if a.Talosconfig == "" {
		_, conf, err := find()
		return conf, err
	}
	return read(a.Talosconfig)
}

// read reads a talosconfig. (The machinery's own Open makes an empty file where there is none, and the auditor is to change
// nothing.)
func read(name string) (*config.Config, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return config.FromBytes(text)
}

// Find returns the talosconfig that talosctl would find: the first that is there and has a context. Where there is none, the
// error is [fs.ErrNotExist]. Who is to open that very one names it in [Access].
func Find() (string, error) {
	name, _, err := find()
	return name, err
}

func find() (string, *config.Config, error) {
	paths, err := config.GetDefaultPaths()
	if err != nil {
		return "", nil, err
	}
	for _, p := range paths {
		if conf, err := read(p.Path); err == nil && len(conf.Contexts) > 0 {
			return p.Path, conf, nil
		}
	}
	return "", nil, fmt.Errorf("none with a context is there: %w", fs.ErrNotExist)
}

// Close ends the connections.
func (c *Client) Close() error { return c.talos.Close() }

// Nodes are those that the caller or the talosconfig named.
func (c *Client) Nodes() []string { return c.nodes }

// A Member is one of etcd, as Talos tells it.
type Member = machine.EtcdMember

// Members asks the first of the nodes that answers for etcd's member list; without nodes, the endpoint itself.
func (c *Client) Members(ctx context.Context) ([]*Member, error) {
	asked := [][]string{nil}
	if len(c.nodes) > 0 {
		asked = nil
		for _, n := range c.nodes {
			asked = append(asked, []string{n})
		}
	}
	var failed []error
	for _, n := range asked {
		ctx := ctx
		if len(n) > 0 {
			ctx = client.WithNode(ctx, n[0])
		}
		list, err := c.talos.EtcdMemberList(ctx, &machine.EtcdMemberListRequest{})
		if err == nil && len(list.GetMessages()) > 0 {
			return list.GetMessages()[0].GetMembers(), nil
		}
		if err == nil {
			err = errors.New("an empty answer")
		}
		failed = append(failed, plain(err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("etcd's member list: %w", errors.Join(failed...))
}

// EtcdHealthy asks a node's member for its status. It gives the id of the member that answers.
func (c *Client) EtcdHealthy(ctx context.Context, node string) (uint64, bool, error) {
	answer, err := c.talos.EtcdStatus(client.WithNode(ctx, node))
	if err != nil {
		return 0, false, plain(err)
	}
	for _, m := range answer.GetMessages() {
		s := m.GetMemberStatus()
		return s.GetMemberId(), s.GetLeader() != 0 && len(s.GetErrors()) == 0, nil
	}
	return 0, false, errors.New("an empty answer")
}

// Identity is what a node says of itself.
type Identity struct {
	Hostname   string // with its domain
	Platform   string // hcloud
	Announced  string // the hostname that the platform's metadata gave it
	InstanceID string
}

// Identity asks a node for its hostname and what its platform told it.
func (c *Client) Identity(ctx context.Context, node string) (Identity, error) {
	var host networkpb.HostnameStatusSpec
	if err := c.get(ctx, node, "network", "HostnameStatuses.net.talos.dev", "hostname", &host); err != nil {
		return Identity{}, err
	}
	id := Identity{Hostname: host.GetHostname()}
	if d := host.GetDomainname(); d != "" {
		id.Hostname += "." + d
	}
	var platform runtimepb.PlatformMetadataSpec
	err := c.get(ctx, node, "runtime", "PlatformMetadatas.talos.dev", "platformmetadata", &platform)
	if err != nil && status.Code(err) != codes.NotFound {
		return Identity{}, err
	}
	id.Platform, id.Announced, id.InstanceID = platform.GetPlatform(), platform.GetHostname(), platform.GetInstanceId()
	return id, nil
}

// MachineConfig reads a node's machine configuration, byte for byte as it was given. It holds secrets.
func (c *Client) MachineConfig(ctx context.Context, node string) ([]byte, error) {
	var spec configpb.MachineConfigSpec
	if err := c.get(ctx, node, "config", "MachineConfigs.config.talos.dev", "v1alpha1", &spec); err != nil {
		if status.Code(err) == codes.PermissionDenied {
			return nil, fmt.Errorf("%w (the machine configuration needs the role os:admin)", err)
		}
		return nil, err
	}
	return spec.GetYamlMarshalled(), nil
}

// Version is the tag of the Talos that a node runs, such as v1.12.7.
func (c *Client) Version(ctx context.Context, node string) (string, error) {
	answer, err := c.talos.Version(client.WithNode(ctx, node))
	if err != nil {
		return "", plain(err)
	}
	for _, m := range answer.GetMessages() {
		return m.GetVersion().GetTag(), nil
	}
	return "", errors.New("an empty answer")
}

// Apply gives a node another machine configuration, without a reboot; with try it is only checked by the node. It returns
// what the node has to say about it.
func (c *Client) Apply(ctx context.Context, node string, configuration []byte, try bool) ([]string, error) {
	answer, err := c.talos.ApplyConfiguration(client.WithNode(ctx, node), &machine.ApplyConfigurationRequest{
		Data: configuration, Mode: machine.ApplyConfigurationRequest_NO_REBOOT, DryRun: try,
	})
	if err != nil {
		return nil, plain(err)
	}
	var said []string
	for _, m := range answer.GetMessages() {
		said = append(said, m.GetWarnings()...)
	}
	return said, nil
}

// get reads the spec of one resource of a node.
func (c *Client) get(ctx context.Context, node, namespace, kind, id string, spec proto.Message) error {
	answer, err := c.cosi.Get(client.WithNode(ctx, node), &cosi.GetRequest{Namespace: namespace, Type: kind, Id: id, Options: &cosi.GetOptions{}})
	if err != nil {
		return &NodeError{Node: node, What: id, Err: plain(err)}
	}
	if err := proto.Unmarshal(answer.GetResource().GetSpec().GetProtoSpec(), spec); err != nil {
		return &NodeError{Node: node, What: id, Err: err}
	}
	return nil
}

// A NodeError is what went wrong with one node.
type NodeError struct {
	Node string
	What string // the resource that was asked for
	Err  error
}

func (e *NodeError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Node, e.What, e.Err) }

// Unwrap is the cause, a status of gRPC.
func (e *NodeError) Unwrap() error { return e.Err }

// plain is an error without gRPC's preamble, the status still in it.
func plain(err error) error {
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unavailable {
		return fmt.Errorf("cannot be reached: %w", err)
	}
	return err
}
