//go:build linux

package controlplane

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/nametag-boot/nametag/cluster/lab"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
)

// Gateway is the private network's. It is this process' own network namespace, which therefore must be one that nobody else needs.
const Gateway = "10.1.0.1"

// network is the private network's id in the cloud's API.
const network = 1

// made counts the clusters of this process, which share its network.
var made atomic.Int32

// A Cluster is a control plane and the cloud that it is in. Its methods are for one goroutine, but for those that read.
type Cluster struct {
	// API is the fake API of the cloud.
	API *lab.Cloud

	programs *Programs
	dir      string
	ca       *authority
	admin    pair
	accounts pair // its key signs the tokens of accounts
	closeAPI func()

	subnet int32

	mu      sync.Mutex
	servers []*Server
	created int
}

// New makes a cloud without servers. It needs a network namespace of its own, and root.
func New(ctx context.Context, programs *Programs) (*Cluster, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("controlplane: a server here is a set of namespaces with a kubelet in them: that needs root")
	}
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "replace", Gateway + "/32", "dev", "lo"}} {
		if err := ip(ctx, args...); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil { //nolint:gosec // the kernel's
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nametag-controlplane-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{programs: programs, dir: dir, subnet: (made.Add(1) - 1) % 200}
	c.API, c.closeAPI = lab.NewCloud()
	c.API.AddNetwork(network, "cluster")
	if c.ca, err = newAuthority(); err == nil {
		c.admin, err = c.ca.issue(pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}})
	}
	if err == nil {
		c.accounts, err = c.ca.issue(pkix.Name{CommonName: "accounts"})
	}
	if err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

// Create makes a server, as the cloud does; it does not run yet. Its metadata service answers.
func (c *Cluster) Create(name string) (*Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.created++
	s := &Server{ID: int64(4711000 + c.created), Address: fmt.Sprintf("10.1.%d.%d", c.subnet, 10+c.created), cluster: c}
	s.name.Store(&name)
	s.metadata.Store(true)
	home := filepath.Join(c.dir, fmt.Sprint(s.ID))
	s.config = machine.Config{
		Address: s.Address, Gateway: Gateway, Root: c.programs.Root, Kube: c.programs.Kube,
		Disk: filepath.Join(home, "disk"), Lab: filepath.Join(home, "lab"), Group: fmt.Sprintf("nametag-%s-%d", filepath.Base(c.dir), s.ID),
	}
	for _, other := range c.servers {
		s.config.Members = append(s.config.Members, other.Client())
	}
	if err := os.MkdirAll(s.config.Disk, 0o755); err != nil { //nolint:gosec // the lab's
		return nil, err
	}
	if err := c.equip(s); err != nil {
		return nil, err
	}
	c.servers = append(c.servers, s)
	c.API.Add(lab.Server{ID: s.ID, Name: name, Created: time.Now().Add(-time.Hour), Private: map[int64]string{network: s.Address}})
	return s, nil
}

// Rename gives a server another name in the cloud.
func (c *Cluster) Rename(s *Server, name string) {
	s.name.Store(&name)
	c.API.Rename(s.ID, name)
}

// Delete switches a server off and takes it away, disk and all.
func (c *Cluster) Delete(ctx context.Context, s *Server) error {
	err := s.Off(ctx)
	c.API.Delete(s.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = slices.DeleteFunc(c.servers, func(other *Server) bool { return other == s })
	return errors.Join(err, os.RemoveAll(filepath.Dir(s.config.Disk)))
}

// Servers are those that there are.
func (c *Cluster) Servers() []*Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.servers)
}

// Close switches everything off and takes it away.
func (c *Cluster) Close(ctx context.Context) error {
	var errs []error
	for _, s := range c.Servers() {
		errs = append(errs, c.Delete(ctx, s))
	}
	c.closeAPI()
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// bootstrapToken is whom a kubelet without a certificate is.
const bootstrapToken = "the-first-word-of-a-kubelet" //nolint:gosec // the lab's

// equip fills the folder that the server has at machine.Dir.
func (c *Cluster) equip(s *Server) error {
	plugins, firmware := filepath.Join(s.config.Lab, "cni/bin"), filepath.Join(s.config.Lab, "dmi")
	for _, dir := range []string{plugins, filepath.Join(s.config.Lab, "cni/conf"), firmware} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the lab's
			return err
		}
	}
	for _, program := range []string{"guest", "nametag", machine.PauseFile} {
		if out, err := exec.Command("cp", filepath.Join(c.programs.Lab, program), s.config.Lab).CombinedOutput(); err != nil { //nolint:noctx // at once
			return fmt.Errorf("cp: %w: %s", err, out)
		}
	}
	for _, plugin := range []string{"bridge", "loopback"} {
		if err := os.Link(filepath.Join(s.config.Lab, "guest"), filepath.Join(plugins, plugin)); err != nil {
			return err
		}
	}
	if err := (cloud.Server{InstanceID: fmt.Sprint(s.ID)}).WriteDMI(firmware); err != nil {
		return err
	}
	serving, err := c.ca.issue(pkix.Name{CommonName: "kube-apiserver"}, s.Address, "127.0.0.1")
	if err != nil {
		return err
	}
	bootstrap, err := clientcmd.Write(*c.kubeconfig(s, &api.AuthInfo{Token: bootstrapToken}))
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt": c.ca.pem, "apiserver.crt": serving.certificate, "apiserver.key": serving.key, "sa.key": c.accounts.key,
		"tokens.csv":           []byte(bootstrapToken + ",system:bootstrap:lab,lab,system:bootstrappers\n"),
		"bootstrap.kubeconfig": bootstrap, "kubelet.yaml": []byte(kubeletConfig), "containerd.toml": []byte(containerdConfig),
		"audit.yaml": []byte(auditPolicy), "cni/conf/10-lab.conflist": []byte(cniConfig),
	} {
		if err := os.WriteFile(filepath.Join(s.config.Lab, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) kubeconfig(s *Server, who *api.AuthInfo) *api.Config {
	k := api.NewConfig()
	k.Clusters["lab"] = &api.Cluster{Server: "https://" + s.Address + ":6443", CertificateAuthorityData: c.ca.pem}
	k.AuthInfos["lab"] = who
	k.Contexts["lab"] = &api.Context{Cluster: "lab", AuthInfo: "lab"}
	k.CurrentContext = "lab"
	return k
}

// Kubeconfig writes one for the administrator, through a server's API server, and gives its name.
func (c *Cluster) Kubeconfig(s *Server) (string, error) {
	name := filepath.Join(c.dir, "kubeconfig")
	return name, clientcmd.WriteToFile(*c.kubeconfig(s, &api.AuthInfo{ClientCertificateData: c.admin.certificate, ClientKeyData: c.admin.key}), name)
}

// Kubernetes is an administrator's client of a server's API server.
func (c *Cluster) Kubernetes(s *Server) (*kubernetes.Clientset, error) {
	return kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + s.Address + ":6443", Timeout: 20 * time.Second, QPS: 50, Burst: 100,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem, CertData: c.admin.certificate, KeyData: bytes.Clone(c.admin.key)},
	})
}

// Etcd is a client of the members.
func (c *Cluster) Etcd(ctx context.Context, servers ...*Server) (*clientv3.Client, error) {
	var endpoints []string
	for _, s := range servers {
		endpoints = append(endpoints, s.Client())
	}
	return clientv3.New(clientv3.Config{Endpoints: endpoints, Context: ctx, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: ` + machine.Dir + `/ca.crt}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
enforceNodeAllocatable: [none]
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: ""
rotateCertificates: true
serverTLSBootstrap: true
volumePluginDir: /var/lib/kubelet/plugins-of-volumes
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 10
evictionHard: {memory.available: 1Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
imageGCHighThresholdPercent: 100
`

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + machine.PauseImage + `"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + machine.Dir + `/cni/bin"
    conf_dir = "` + machine.Dir + `/cni/conf"
`

const cniConfig = `{"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "bridge"}]}
`

// auditPolicy takes down who asks for what, of every request.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`
