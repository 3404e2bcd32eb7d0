package command

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/source"
	"github.com/nametag-boot/nametag/cluster/talosapi"
)

// where says where the sources are.
type where struct {
	version string
	only    []string

	tokenFile, network string

	kubeconfig, context           string
	management, managementContext string

	etcd                    []string
	etcdCA, etcdCert, etcdK string

	talos talosapi.Access

	timeout time.Duration
}

func (w *where) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&w.only, "sources", nil, "read only these: cloud, etcd, kubernetes, clusterapi, talos (default: all that can be found)")
	f.DurationVar(&w.timeout, "timeout", source.DefaultTimeout, "how long one source may take")
	w.cloudFlags(f)
	f.StringVar(&w.network, "network", "", "only addresses of this private network count, by name or id")
	f.StringVar(&w.kubeconfig, "kubeconfig", "", "the file (default: $KUBECONFIG, ~/.kube/config, then the pod's own account)")
	f.StringVar(&w.context, "context", "", "the kubeconfig's context (default: the current one)")
	f.StringVar(&w.management, "management-kubeconfig", "", "the file for the cluster that has the objects of Cluster API (default: the same)")
	f.StringVar(&w.managementContext, "management-context", "", "and its context")
	f.StringSliceVar(&w.etcd, "etcd-endpoints", nil, "ask etcd itself, at these URLs (default: through Talos)")
	f.StringVar(&w.etcdCA, "etcd-cacert", "", "the file with etcd's CA")
	f.StringVar(&w.etcdCert, "etcd-cert", "", "the file with the client's certificate")
	f.StringVar(&w.etcdK, "etcd-key", "", "the file with its key")
	w.talosFlags(f)
}

func (w *where) cloudFlags(f *pflag.FlagSet) {
	f.StringVar(&w.tokenFile, "token-file", "", "the file with a token of the Hetzner Cloud project, which may be read-only (default: $HCLOUD_TOKEN)")
}

func (w *where) talosFlags(f *pflag.FlagSet) {
	f.StringVar(&w.talos.Talosconfig, "talosconfig", "", "the file (default: $TALOSCONFIG, ~/.talos/config, then the pod's own)")
	f.StringVar(&w.talos.Context, "talos-context", "", "the talosconfig's context (default: the current one)")
	f.StringSliceVarP(&w.talos.Endpoints, "talos-endpoints", "e", nil, "where Talos' API is (default: the talosconfig's)")
	f.StringSliceVarP(&w.talos.Nodes, "nodes", "n", nil, "the nodes' addresses (default: the talosconfig's, else the members')")
}

// cloud is the source of the cloud, nil where there is no token.
func (w *where) cloud() (*source.Cloud, error) {
	token := os.Getenv("HCLOUD_TOKEN")
	if w.tokenFile != "" {
		b, err := os.ReadFile(w.tokenFile)
		if err != nil {
			return nil, usage("--token-file: %w", err)
		}
		token = string(b)
	}
	token = strings.TrimSpace(token)
	if token == "" {
		return nil, nil //nolint:nilnil // no token is no mistake: the source is off
	}
	c := source.NewCloud(token, os.Getenv("HCLOUD_ENDPOINT"), w.version)
	c.Network = w.network
	return c, nil
}

// kube reads a kubeconfig as kubectl does, the pod's own account included; nil where there is none.
func kube(file, context string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err == nil {
		return c, nil
	}
	if file == "" && context == "" && clientcmd.IsEmptyConfig(err) {
		return nil, nil //nolint:nilnil // no kubeconfig is no mistake: the source is off
	}
	return nil, usage("kubeconfig: %w", err)
}

// wanted reports whether a source is to be asked if it can be, named whether somebody asked for it by name.
func (w *where) wanted(s audit.Source) bool { return len(w.only) == 0 || w.named(s) }
func (w *where) named(s audit.Source) bool  { return slices.Contains(w.only, string(s)) }

// readers are the sources that can be found, or those that were named.
func (w *where) readers() ([]source.Reader, error) {
	for _, name := range w.only {
		if !slices.Contains(audit.Sources(), audit.Source(name)) {
			return nil, usage("--sources: %q is none: choose cloud, etcd, kubernetes, clusterapi or talos", name)
		}
	}
	var readers []source.Reader
	for _, find := range []func() ([]source.Reader, error){w.cloudReaders, w.kubeReaders, w.etcdReaders} {
		found, err := find()
		if err != nil {
			return nil, err
		}
		readers = append(readers, found...)
	}
	if len(source.Asked(readers)) < 2 && len(w.only) == 0 {
		return nil, usage("nothing to compare: of the cloud (HCLOUD_TOKEN), Kubernetes (kubeconfig) and etcd (--etcd-endpoints or a talosconfig) at least two must be given")
	}
	return readers, nil
}

func (w *where) cloudReaders() ([]source.Reader, error) {
	if !w.wanted(audit.Cloud) {
		return nil, nil
	}
	c, err := w.cloud()
	switch {
	case err != nil:
		return nil, err
	case c != nil:
		return []source.Reader{c}, nil
	case w.named(audit.Cloud):
		return nil, usage("the cloud needs a token: set HCLOUD_TOKEN, or name a file with --token-file; a read-only one does")
	}
	return nil, nil
}

// kubeReaders are Kubernetes and Cluster API, which may be in a cluster of its own.
func (w *where) kubeReaders() (readers []source.Reader, err error) {
	if !w.wanted(audit.Kubernetes) && !w.wanted(audit.ClusterAPI) {
		return nil, nil
	}
	c, err := kube(w.kubeconfig, w.context)
	if err != nil {
		return nil, err
	}
	if c == nil && (w.named(audit.Kubernetes) || w.named(audit.ClusterAPI) && w.management == "") {
		return nil, usage("Kubernetes needs a kubeconfig: --kubeconfig, $KUBECONFIG or ~/.kube/config")
	}
	if c != nil && w.wanted(audit.Kubernetes) {
		readers = append(readers, &source.Kubernetes{Config: c})
	}
	if w.management != "" || w.managementContext != "" {
		if c, err = kube(w.management, w.managementContext); err != nil {
			return nil, err
		}
	}
	if c != nil && w.wanted(audit.ClusterAPI) {
		readers = append(readers, &source.ClusterAPI{Config: c, Required: w.named(audit.ClusterAPI) || w.management != ""})
	}
	return readers, nil
}

func (w *where) etcdReaders() ([]source.Reader, error) {
	var readers []source.Reader
	if len(w.etcd) > 0 && w.wanted(audit.Etcd) {
		for _, endpoint := range w.etcd {
			if err := checkEndpoint(endpoint); err != nil {
				return nil, err
			}
		}
		t, err := w.etcdTLS()
		if err != nil {
			return nil, err
		}
		readers = append(readers, &source.Etcd{Endpoints: w.etcd, TLS: t})
	}
	known, err := w.findTalos()
	if err != nil {
		return nil, err
	}
	if !known && (w.named(audit.Talos) || w.named(audit.Etcd) && len(w.etcd) == 0) {
		return nil, usage("etcd needs --etcd-endpoints, or a talosconfig: --talosconfig, $TALOSCONFIG or ~/.talos/config")
	}
	if known && len(w.etcd) == 0 && w.wanted(audit.Etcd) {
		readers = append(readers, &source.TalosEtcd{Access: w.talos})
	}
	if known && w.wanted(audit.Talos) {
		readers = append(readers, &source.TalosHosts{Access: w.talos})
	}
	return readers, nil
}

// findTalos reports whether there is a talosconfig with a context. The one that it finds is the one that is opened later.
func (w *where) findTalos() (bool, error) {
	if w.talos.Talosconfig == "" {
		found, err := talosapi.Find()
		w.talos.Talosconfig = found
		return err == nil, nil
	}
	if _, err := os.Stat(w.talos.Talosconfig); err != nil {
		return false, usage("--talosconfig: %w", err)
	}
	return true, nil
}

// checkEndpoint says what is wrong with an endpoint of etcd. Its client takes any text, and then waits for an answer.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err == nil && slices.Contains([]string{"http", "https", "unix", "unixs"}, u.Scheme) && u.Host+u.Path != "" {
		return nil
	}
	if _, port, err := net.SplitHostPort(endpoint); err == nil && port != "" {
		return nil // a HOST:PORT is one too
	}
	return usage("--etcd-endpoints: %q is no URL of etcd's, such as https://10.0.0.1:2379", endpoint)
}

func (w *where) etcdTLS() (*tls.Config, error) {
	if w.etcdCA == "" && w.etcdCert == "" && w.etcdK == "" {
		return nil, nil //nolint:nilnil // plain HTTP
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if w.etcdCA != "" {
		pem, err := os.ReadFile(w.etcdCA)
		if err != nil {
			return nil, usage("--etcd-cacert: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usage("--etcd-cacert: %s has no certificate", w.etcdCA)
		}
	}
	if w.etcdCert != "" || w.etcdK != "" {
		pair, err := tls.LoadX509KeyPair(w.etcdCert, w.etcdK)
		if err != nil {
			return nil, usage("--etcd-cert, --etcd-key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
