//go:build linux

package controlplane

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
)

// A Member is one of etcd's MemberList.
type Member struct{ Name, Address string }

// Members reads them from a server's etcd, in the order of their addresses. A learner counts, and one without a name.
func (c *Cluster) Members(ctx context.Context, of *Server) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client, err := c.Etcd(ctx, of)
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // what was asked for is here
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	var all []Member
	for _, m := range list.Members {
		all = append(all, Member{m.Name, strings.TrimSuffix(strings.TrimPrefix(m.PeerURLs[0], "http://"), ":2380")})
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.Address, b.Address) })
	return all, nil
}

// RemoveMember removes a server's member, as whoever replaces a machine does.
func (c *Cluster) RemoveMember(ctx context.Context, through, gone *Server) error {
	client, err := c.Etcd(ctx, through)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // what was asked for is done
	list, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, m := range list.Members {
		if strings.Contains(m.PeerURLs[0], "/"+gone.Address+":") {
			_, err := client.MemberRemove(ctx, m.ID)
			return err
		}
	}
	return errors.New("it has no member")
}

// A Node is one of the API server's.
type Node struct {
	Name, HostnameLabel, HostnameAddress, Address, ProviderID string
	Ready, Uninitialized                                      bool
}

// Nodes reads them from a server's API server, in the order of their names.
func (c *Cluster) Nodes(ctx context.Context, of *Server) ([]Node, error) {
	client, err := c.Kubernetes(of)
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var all []Node
	for i := range list.Items {
		n := &list.Items[i]
		node := Node{Name: n.Name, HostnameLabel: n.Labels[core.LabelHostname], ProviderID: n.Spec.ProviderID}
		for _, a := range n.Status.Addresses {
			switch a.Type {
			case core.NodeHostName:
				node.HostnameAddress = a.Address
			case core.NodeInternalIP:
				node.Address = a.Address
			}
		}
		for _, condition := range n.Status.Conditions {
			if condition.Type == core.NodeReady {
				node.Ready = condition.Status == core.ConditionTrue
			}
		}
		node.Uninitialized = slices.ContainsFunc(n.Spec.Taints, func(t core.Taint) bool { return t.Key == uninitialized })
		all = append(all, node)
	}
	slices.SortFunc(all, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Certificates are the names in those that kubelets were given, from the API server: the client's, and the server's.
func (c *Cluster) Certificates(ctx context.Context, of *Server) (clients, servers []string, err error) {
	client, err := c.Kubernetes(of)
	if err != nil {
		return nil, nil, err
	}
	list, err := client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	for i := range list.Items {
		b, _ := pem.Decode(list.Items[i].Status.Certificate)
		if b == nil {
			continue // not signed yet
		}
		certificate, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, nil, err
		}
		if slices.Contains(certificate.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
			clients = append(clients, nodeUser(certificate.Subject.CommonName))
		} else {
			servers = append(servers, nodeUser(certificate.Subject.CommonName))
		}
	}
	slices.Sort(clients)
	slices.Sort(servers)
	return slices.Compact(clients), slices.Compact(servers), nil
}

// Serves is the certificate that a server's kubelet shows to whoever connects.
func (s *Server) Serves() (*x509.Certificate, error) { return served(s.Address + ":10250") }

// NodeUsers are the nodes that a server's API server has ever heard of as somebody who asks, from its audit log.
func (s *Server) NodeUsers() ([]string, error) {
	if s.virtual {
		return nodeUsers(strings.NewReader(s.shown("state/audit.log")))
	}
	f, err := os.Open(s.stateFile("audit.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return nodeUsers(f)
}

func nodeUsers(log io.Reader) ([]string, error) {
	var all []string
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			User struct{ Username string }
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			break // the last one is being written
		}
		if name := nodeUser(event.User.Username); name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all, lines.Err()
}

// Named is the hostname under which the server's services started; "" as long as there is none.
func (s *Server) Named() string { return s.state(machine.Named) }

// NoName is why the server has no name and starts no service; "" where that is not so.
func (s *Server) NoName() string { return s.state(machine.NoName) }

// Renamed is the hostname that came after the services had started; "" where there is none.
func (s *Server) Renamed() string { return s.state(machine.Renamed) }

// Failed is what the server cannot go on without; "" where that is not so.
func (s *Server) Failed() string { return s.state(machine.Failed) }
