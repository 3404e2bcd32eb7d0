//go:build linux

package controlplane

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// uninitialized is the taint of a node that no cloud controller has found a server for.
const uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"

// Controllers are test doubles of three that a cluster has, in their rules:
//
//   - Hetzner's cloud controller: it looks for a node's server by the providerID, and where there is none yet by name. It gives the
//     node its providerID then and takes the taint away. A node whose server is gone it deletes.
//   - The controller manager's signer, for the certificates of kubelets: it approves and signs what was asked for.
//   - The controller manager's look at the nodes' lives: one that gives no sign of life is not known to be ready.
//
// They work through a server's API server until the context ends. report hears of what goes wrong.
func (c *Cluster) Controllers(ctx context.Context, through *Server, report func(error)) error {
	client, err := c.Kubernetes(through)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := errors.Join(allow(ctx, client), c.signAll(ctx, client), c.findServers(ctx, client), noticeSilence(ctx, client)); err != nil && ctx.Err() == nil {
			report(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	return nil
}

// allow lets a kubelet ask for its first certificate.
func allow(ctx context.Context, client *kubernetes.Clientset) error {
	_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, &rbac.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "lab-bootstrap"},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "system:node-bootstrapper"},
		Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: rbac.GroupKind, Name: "system:bootstrappers"}},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (c *Cluster) signAll(ctx context.Context, client *kubernetes.Clientset) error {
	list, err := client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for i := range list.Items {
		if r := &list.Items[i]; len(r.Status.Certificate) == 0 {
			errs = append(errs, c.sign(ctx, client, r))
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) sign(ctx context.Context, client *kubernetes.Clientset, r *certificates.CertificateSigningRequest) (err error) {
	use := x509.ExtKeyUsageClientAuth
	if r.Spec.SignerName == certificates.KubeletServingSignerName {
		use = x509.ExtKeyUsageServerAuth
	}
	all := client.CertificatesV1().CertificateSigningRequests()
	if len(r.Status.Conditions) == 0 {
		r.Status.Conditions = []certificates.CertificateSigningRequestCondition{{Type: certificates.CertificateApproved, Status: core.ConditionTrue, Reason: "Lab"}}
		if r, err = all.UpdateApproval(ctx, r.Name, r, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if r.Status.Certificate, err = c.ca.answer(r.Spec.Request, use); err != nil {
		return err
	}
	_, err = all.UpdateStatus(ctx, r, metav1.UpdateOptions{})
	return err
}

func (c *Cluster) findServers(ctx context.Context, client *kubernetes.Clientset) error {
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	servers := c.Servers()
	var errs []error
	for i := range list.Items {
		n := &list.Items[i]
		if n.Spec.ProviderID != "" {
			if !slices.ContainsFunc(servers, func(s *Server) bool { return providerID(s) == n.Spec.ProviderID }) {
				errs = append(errs, client.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{}))
			}
			continue
		}
		for _, s := range servers {
			if s.Name() != n.Name {
				continue
			}
			n.Spec.ProviderID = providerID(s)
			n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t core.Taint) bool { return t.Key == uninitialized })
			if _, err := client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// silence is after how long without a sign of life a node is not known to be ready. (The real one waits for 40 seconds.)
const silence = 10 * time.Second

// noticeSilence marks the nodes whose kubelets neither renew their leases nor report.
func noticeSilence(ctx context.Context, client *kubernetes.Clientset) error {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	leases, err := client.CoordinationV1().Leases(core.NamespaceNodeLease).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	alive := map[string]time.Time{}
	for i := range leases.Items {
		if l := &leases.Items[i]; l.Spec.RenewTime != nil {
			alive[l.Name] = l.Spec.RenewTime.Time
		}
	}
	var errs []error
	for i := range nodes.Items {
		n := &nodes.Items[i]
		for j := range n.Status.Conditions {
			c := &n.Status.Conditions[j]
			if c.Type != core.NodeReady || c.Status != core.ConditionTrue || time.Since(alive[n.Name]) < silence || time.Since(c.LastHeartbeatTime.Time) < silence {
				continue
			}
			c.Status, c.Reason, c.LastTransitionTime = core.ConditionUnknown, "NodeStatusUnknown", metav1.Now()
			if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func providerID(s *Server) string { return fmt.Sprintf("hcloud://%d", s.ID) }

// nodeUser is the name of a node's user, without its prefix; "" for another user.
func nodeUser(user string) string {
	name, ok := strings.CutPrefix(user, "system:node:")
	if !ok {
		return ""
	}
	return name
}
