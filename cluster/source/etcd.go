package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// Etcd reads the members by etcd's own client.
type Etcd struct {
	Endpoints []string
	TLS       *tls.Config // nil for plain HTTP
}

// Source is audit.Etcd.
func (*Etcd) Source() audit.Source { return audit.Etcd }

// healthTimeout bounds the question to one member: one that takes longer does not answer.
const healthTimeout = 2 * time.Second

// Read asks for the member list and then every member for its health. Where there is no leader it takes the list that the
// member at hand has: that there is none is what has to be told.
func (e *Etcd) Read(ctx context.Context, into *audit.Snapshot) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: e.Endpoints, TLS: e.TLS, Context: ctx, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // what was asked for is here
	list, agreed, err := e.list(ctx, client)
	if err != nil {
		return err
	}
	for _, m := range list.Members {
		into.Members = append(into.Members, audit.Member{ID: m.ID, Name: audit.Printable(m.Name), PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner})
	}
	ask(ctx, client, into.Members, agreed)
	return nil
}

// list is the member list; agreed is whether there is a leader that stands for it.
func (e *Etcd) list(ctx context.Context, client *clientv3.Client) (list *clientv3.MemberListResponse, agreed bool, err error) {
	soon, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	list, err = client.MemberList(soon)
	if err == nil {
		return list, true, nil
	}
	list, again := client.MemberList(ctx, clientv3.WithSerializable())
	if again != nil {
		return nil, false, fmt.Errorf("no member list from %v: %w", e.Endpoints, errors.Join(err, again))
	}
	return list, false, nil
}

// ask asks every member for its health over its own client URLs. A member that answers is healthy if it has a leader; where there
// is none, the number of those that answer says why. Where none can be reached from here although there is a leader, nothing is
// known of any: the way there may be a tunnel to one of them.
func ask(ctx context.Context, client *clientv3.Client, members []audit.Member, agreed bool) {
	answers := make([]bool, len(members))
	var all sync.WaitGroup
	for i, m := range members {
		if len(m.ClientURLs) == 0 {
			continue
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, healthTimeout)
			defer cancel()
			status, err := client.Status(ctx, m.ClientURLs[0])
			answers[i] = err == nil && status.Header.MemberId == m.ID && (status.Leader != 0 || !agreed)
		})
	}
	all.Wait()
	if agreed && !slices.Contains(answers, true) {
		return
	}
	for i := range members {
		if members[i].Name == "" {
			continue
		}
		members[i].Health = audit.Unhealthy
		if answers[i] {
			members[i].Health = audit.Healthy
		}
	}
}
