package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	sidero "github.com/siderolabs/crypto/x509"
	"github.com/siderolabs/talos/pkg/machinery/api/machine"
	configpb "github.com/siderolabs/talos/pkg/machinery/api/resource/config"
	networkpb "github.com/siderolabs/talos/pkg/machinery/api/resource/definitions/network"
	runtimepb "github.com/siderolabs/talos/pkg/machinery/api/resource/definitions/runtime"
	"github.com/siderolabs/talos/pkg/machinery/client/config"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/nametag-boot/nametag/cluster/pin"
)

// A TalosNode is what one node of the fake Talos API says of itself.
type TalosNode struct {
	Version    string // v1.12.7
	Hostname   string
	Domain     string
	Platform   string
	Announced  string
	InstanceID string
	Config     []byte

	Down    bool  // it does not answer
	Refuses error // what it says to a change of its configuration
	// Member is its own of etcd; nil for a worker.
	Member *machine.EtcdMember
	// Sick: its etcd does not answer.
	Sick bool
}

// A Talos is a server of Talos' own protobufs, with mutual TLS and the roles of the client's certificate. It is not Talos: it holds
// what it is given, and applies an explicit hostname as Talos does.
type Talos struct {
	// Endpoint is where it listens.
	Endpoint string

	mu      sync.Mutex
	nodes   map[string]*TalosNode
	applied []*machine.ApplyConfigurationRequest
	ca      *authority
	server  *grpc.Server

	machine.UnimplementedMachineServiceServer
}

// talosState serves the resources of the nodes.
type talosState struct {
	talos *Talos
	cosi.UnimplementedStateServer
}

// NewTalos starts one for the nodes, by address.
func NewTalos(nodes map[string]*TalosNode) (*Talos, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	certificate, err := ca.issue("", true)
	if err != nil {
		return nil, err
	}
	t := &Talos{nodes: nodes, ca: ca}
	t.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
	})))
	machine.RegisterMachineServiceServer(t.server, t)
	cosi.RegisterStateServer(t.server, &talosState{talos: t})
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is there at once
	if err != nil {
		return nil, err
	}
	t.Endpoint = l.Addr().String()
	go t.server.Serve(l) //nolint:errcheck // it ends with Close
	return t, nil
}

// Close ends it.
func (t *Talos) Close() { t.server.Stop() }

// Talosconfig writes one for a role, such as os:reader, and gives its name.
func (t *Talos) Talosconfig(dir, role string, nodes ...string) (string, error) {
	pair, err := t.ca.issuePEM(role, false)
	if err != nil {
		return "", err
	}
	c := config.NewConfig("lab", []string{t.Endpoint}, t.ca.pem, pair)
	c.Contexts["lab"].Nodes = nodes
	name := filepath.Join(dir, "talosconfig-"+role[len("os:"):])
	return name, c.Save(name)
}

// Change changes a node under the lock.
func (t *Talos) Change(node string, f func(*TalosNode)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t.nodes[node])
}

// Applied are the changes of configurations that were asked for, those only tried included.
func (t *Talos) Applied() []*machine.ApplyConfigurationRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.applied)
}

// node is the one that a request is for.
func (t *Talos) node(ctx context.Context) (*TalosNode, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := md.Get("node")
	if len(wanted) == 0 { // the endpoint itself: the first with an etcd
		for _, n := range t.nodes {
			if n.Member != nil && !n.Down {
				return n, nil
			}
		}
		return nil, status.Error(codes.Unavailable, "no node")
	}
	n := t.nodes[wanted[0]]
	if n == nil || n.Down {
		return nil, status.Errorf(codes.Unavailable, "connection error: desc = \"transport: Error while dialing: dial tcp %s:50000: connect: no route to host\"", wanted[0])
	}
	return n, nil
}

// needs checks the role of the client's certificate.
func needs(ctx context.Context, roles ...string) error {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if ok {
		for _, role := range info.State.PeerCertificates[0].Subject.Organization {
			if slices.Contains(roles, role) {
				return nil
			}
		}
	}
	return status.Error(codes.PermissionDenied, "not authorized")
}

// Version tells it.
func (t *Talos) Version(ctx context.Context, _ *emptypb.Empty) (*machine.VersionResponse, error) {
	n, err := t.node(ctx)
	if err != nil {
		return nil, err
	}
	return &machine.VersionResponse{Messages: []*machine.Version{{Version: &machine.VersionInfo{Tag: n.Version}}}}, nil
}

// EtcdMemberList tells of the members of all nodes that have one.
func (t *Talos) EtcdMemberList(ctx context.Context, _ *machine.EtcdMemberListRequest) (*machine.EtcdMemberListResponse, error) {
	if err := needs(ctx, "os:reader", "os:operator", "os:admin"); err != nil {
		return nil, err
	}
	if _, err := t.node(ctx); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	list := &machine.EtcdMembers{}
	for _, n := range t.nodes {
		if n.Member != nil {
			list.Members = append(list.Members, n.Member)
		}
	}
	return &machine.EtcdMemberListResponse{Messages: []*machine.EtcdMembers{list}}, nil
}

// EtcdStatus is that of the node's own member.
func (t *Talos) EtcdStatus(ctx context.Context, _ *emptypb.Empty) (*machine.EtcdStatusResponse, error) {
	n, err := t.node(ctx)
	if err != nil {
		return nil, err
	}
	if n.Member == nil || n.Sick {
		return nil, status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	}
	return &machine.EtcdStatusResponse{Messages: []*machine.EtcdStatus{{
		MemberStatus: &machine.EtcdMemberStatus{MemberId: n.Member.GetId(), Leader: 1},
	}}}, nil
}

// ApplyConfiguration takes a machine configuration. What Talos refuses, a HostnameConfig beside the field, is refused.
func (t *Talos) ApplyConfiguration(ctx context.Context, r *machine.ApplyConfigurationRequest) (*machine.ApplyConfigurationResponse, error) {
	if err := needs(ctx, "os:admin"); err != nil {
		return nil, err
	}
	n, err := t.node(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied = append(t.applied, r)
	if n.Refuses != nil {
		return nil, status.Error(codes.InvalidArgument, n.Refuses.Error())
	}
	name, _, err := pin.Hostname(r.GetData())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if !r.GetDryRun() {
		n.Config = slices.Clone(r.GetData())
		if name != "" {
			n.Hostname, n.Domain = name, ""
		}
	}
	return &machine.ApplyConfigurationResponse{Messages: []*machine.ApplyConfiguration{{Mode: r.GetMode()}}}, nil
}

// Get reads a resource.
func (s *talosState) Get(ctx context.Context, r *cosi.GetRequest) (*cosi.GetResponse, error) {
	t := s.talos
	n, err := t.node(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var spec proto.Message
	switch r.GetType() {
	case "HostnameStatuses.net.talos.dev":
		spec = &networkpb.HostnameStatusSpec{Hostname: n.Hostname, Domainname: n.Domain}
	case "PlatformMetadatas.talos.dev":
		if n.Platform == "" {
			return nil, status.Error(codes.NotFound, "resource doesn't exist")
		}
		spec = &runtimepb.PlatformMetadataSpec{Platform: n.Platform, Hostname: n.Announced, InstanceId: n.InstanceID}
	case "MachineConfigs.config.talos.dev":
		if err := needs(ctx, "os:admin"); err != nil {
			return nil, err
		}
		spec = &configpb.MachineConfigSpec{YamlMarshalled: n.Config}
	default:
		return nil, status.Error(codes.NotFound, "resource doesn't exist")
	}
	b, err := proto.Marshal(spec)
	if err != nil {
		return nil, err
	}
	return &cosi.GetResponse{Resource: &cosi.Resource{
		Metadata: &cosi.Metadata{Namespace: r.GetNamespace(), Type: r.GetType(), Id: r.GetId(), Version: "1", Phase: "running"},
		Spec:     &cosi.Spec{ProtoSpec: b},
	}}, nil
}

// An authority issues the certificates of the lab.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	pem  []byte
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	a.pool.AddCert(cert)
	return a, nil
}

func (a *authority) issuePEM(role string, server bool) (*sidero.PEMEncodedCertificateAndKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "lab", Organization: []string{role}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	b, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &sidero.PEMEncodedCertificateAndKey{
		Crt: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b}),
	}, nil
}

func (a *authority) issue(role string, server bool) (tls.Certificate, error) {
	pair, err := a.issuePEM(role, server)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(pair.Crt, pair.Key)
}
