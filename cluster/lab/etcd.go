package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// An Etcd is a cluster of the real etcd, in this process, each member at a loopback address of its own.
type Etcd struct {
	dir     string
	Members []*EtcdMember
}

// An EtcdMember is one of them.
type EtcdMember struct {
	// Name is what it calls itself.
	Name string
	// Address is its own.
	Address    string
	peer       string
	client     string
	dir        string
	server     *embed.Etcd
	peerPort   int
	clientPort int
}

// NewEtcd starts a cluster whose members have these names, at 127.0.first.1, 127.0.first.2 and so on.
func NewEtcd(ctx context.Context, first int, names ...string) (*Etcd, error) {
	dir, err := os.MkdirTemp("", "nametag-etcd-")
	if err != nil {
		return nil, err
	}
	e := &Etcd{dir: dir}
	var initial []string
	for i, name := range names {
		m, err := e.place(ctx, fmt.Sprintf("127.0.%d.%d", first, i+1), name)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		initial = append(initial, name+"="+m.peer)
	}
	errs := make(chan error)
	for _, m := range e.Members { // all at once: none is ready before most are there
		go func() { errs <- m.start(ctx, embed.ClusterStateFlagNew, strings.Join(initial, ",")) }()
	}
	for range e.Members {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// place makes a member that does not run yet.
func (e *Etcd) place(ctx context.Context, address, name string) (*EtcdMember, error) {
	m := &EtcdMember{Name: name, Address: address, dir: filepath.Join(e.dir, address)}
	for _, port := range []*int{&m.peerPort, &m.clientPort} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address+":0")
		if err != nil {
			return nil, err
		}
		*port = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	m.peer, m.client = fmt.Sprintf("http://%s:%d", address, m.peerPort), fmt.Sprintf("http://%s:%d", address, m.clientPort)
	e.Members = append(e.Members, m)
	return m, nil
}

// patience is how long a member may take to be ready.
const patience = 2 * time.Minute

func (m *EtcdMember) start(ctx context.Context, state, initial string) error {
	c := embed.NewConfig()
	c.Name, c.Dir = m.Name, m.dir
	peer, err := url.Parse(m.peer)
	if err != nil {
		return err
	}
	client, err := url.Parse(m.client)
	if err != nil {
		return err
	}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.InitialCluster, c.ClusterState = initial, state
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.UnsafeNoFsync = true
	c.StrictReconfigCheck = false
	c.TickMs, c.ElectionMs = 100, 1000
	s, err := embed.StartEtcd(c)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", m.Name, err)
	}
	m.server = s
	select {
	case <-s.Server.ReadyNotify():
		return nil
	case err := <-s.Err():
		return fmt.Errorf("etcd %s: %w", m.Name, err)
	case <-time.After(patience):
		return fmt.Errorf("etcd %s: not ready in %s", m.Name, patience)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Endpoints are the members' client URLs.
func (e *Etcd) Endpoints() []string {
	var all []string
	for _, m := range e.Members {
		all = append(all, m.client)
	}
	return all
}

// Client makes one.
func (e *Etcd) Client(ctx context.Context) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: e.Endpoints(), Context: ctx, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

// Stop ends a member; its data stays.
func (m *EtcdMember) Stop() {
	if m.server != nil {
		m.server.Close()
		m.server = nil
	}
}

// Restart ends a member if it runs and starts it again, under that name.
func (m *EtcdMember) Restart(ctx context.Context, name string) error {
	m.Stop()
	m.Name = name
	return m.start(ctx, embed.ClusterStateFlagExisting, m.Name+"="+m.peer)
}

// ID is the member's id; 0 while it does not run.
func (m *EtcdMember) ID() uint64 {
	if m.server == nil {
		return 0
	}
	return uint64(m.server.Server.MemberID())
}

// Promise adds a member that has not started: it has no name yet.
func (e *Etcd) Promise(ctx context.Context, address string) (uint64, error) {
	c, err := e.Client(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // what was asked for is here
	added, err := c.MemberAddAsLearner(ctx, []string{"http://" + address + ":2380"})
	if err != nil {
		return 0, err
	}
	return added.Member.ID, nil
}

// Close ends all members and takes their data away.
func (e *Etcd) Close() error {
	for _, m := range e.Members {
		m.Stop()
	}
	return os.RemoveAll(e.dir)
}
