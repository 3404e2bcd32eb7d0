package lab

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// A Kube is an API server of Kubernetes.
type Kube struct {
	// What says which one it is, for people.
	What   string
	Config *rest.Config
	close  func() error
}

// Close ends it.
func (k *Kube) Close() error { return k.close() }

// Kubeconfig writes one for this server and gives its name.
func (k *Kube) Kubeconfig(dir string) (string, error) {
	c := api.NewConfig()
	c.Clusters["lab"] = &api.Cluster{Server: k.Config.Host, CertificateAuthorityData: k.Config.CAData, CertificateAuthority: k.Config.CAFile}
	c.AuthInfos["lab"] = &api.AuthInfo{Token: k.Config.BearerToken}
	c.Contexts["lab"] = &api.Context{Cluster: "lab", AuthInfo: "lab"}
	c.CurrentContext = "lab"
	name := filepath.Join(dir, "kubeconfig")
	return name, clientcmd.WriteToFile(*c, name)
}

// Cache is the folder of what is built or fetched once, $NAMETAG_CACHE or the user's own.
func Cache() string {
	if cache := os.Getenv("NAMETAG_CACHE"); cache != "" {
		return cache
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "nametag")
}

// APIServer is where the real kube-apiserver is kept, and whether it is there.
func APIServer() (string, bool) {
	name := filepath.Join(Cache(), "kube", "v1.32.0", "kube-apiserver")
	st, err := os.Stat(name)
	return name, err == nil && st.Mode().IsRegular()
}

// StartKube starts the real kube-apiserver on an etcd. Users are whom it knows beside the administrator, by token.
func StartKube(ctx context.Context, etcd []string, users map[string]string) (*Kube, error) {
	binary, ok := APIServer()
	if !ok {
		return nil, fmt.Errorf("no kube-apiserver at %s: hack/kube-deps builds it", binary)
	}
	dir, err := os.MkdirTemp("", "nametag-kube-")
	if err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	pair, err := ca.issuePEM("", true)
	if err != nil {
		return nil, err
	}
	tokens := "admin-of-the-lab,admin,admin,system:masters\n"
	for token, user := range users {
		tokens += fmt.Sprintf("%s,%s,%s\n", token, user, user)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string][]byte{"tls.crt": pair.Crt, "tls.key": pair.Key, "tokens.csv": []byte(tokens)} {
		if err := os.WriteFile(file(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	log, err := os.Create(file("log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, //nolint:noctx // it is ended by close, in order
		"--etcd-servers="+strings.Join(etcd, ","), "--secure-port="+strconv.Itoa(port), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--tls-cert-file="+file("tls.crt"), "--tls-private-key-file="+file("tls.key"), "--cert-dir="+dir,
		"--token-auth-file="+file("tokens.csv"), "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-key-file="+file("tls.key"), "--service-account-signing-key-file="+file("tls.key"), "--service-account-issuer=https://127.0.0.1",
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,NodeRestriction", "--feature-gates=AllAlpha=false")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var failed error // of the process, once ended is closed
	ended := make(chan struct{})
	go func() {
		failed = cmd.Wait()
		close(ended)
	}()
	k := &Kube{
		What:   "the real kube-apiserver v1.32.0",
		Config: &rest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", port), BearerToken: "admin-of-the-lab", TLSClientConfig: rest.TLSClientConfig{CAData: ca.pem}},
	}
	k.close = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it has ended
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill() //nolint:errcheck // it has ended
			<-ended
		}
		return errors.Join(log.Close(), os.RemoveAll(dir))
	}
	if err := k.ready(ctx, ended, &failed); err != nil {
		said, _ := os.ReadFile(file("log")) //nolint:errcheck // then it said nothing
		return nil, errors.Join(fmt.Errorf("%w: %s", err, last(said, 2000)), k.close())
	}
	return k, nil
}

func last(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// ready waits until the server says so.
func (k *Kube) ready(ctx context.Context, ended chan struct{}, failed *error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	client, err := rest.HTTPClientFor(k.Config)
	if err != nil {
		return err
	}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.Config.Host+"/readyz", nil)
		if err != nil {
			return err
		}
		if answer, err := client.Do(r); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return fmt.Errorf("kube-apiserver ended: %w", *failed)
		case <-ctx.Done():
			return errors.New("kube-apiserver does not become ready")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// The kinds that the stand-in serves, by the path of their group and version.
var standInServes = map[string][]metav1.APIResource{
	"api/v1": {
		{Name: "nodes", Kind: "Node", Verbs: []string{"list", "get"}},
		{Name: "configmaps", Kind: "ConfigMap", Namespaced: true},
		{Name: "events", Kind: "Event", Namespaced: true},
	},
	"apis/coordination.k8s.io/v1": {{Name: "leases", Kind: "Lease", Namespaced: true}},
	"apis/cluster.x-k8s.io/v1beta1": {
		{Name: "machines", Kind: "Machine", Namespaced: true},
		{Name: "clusters", Kind: "Cluster", Namespaced: true},
		{Name: "machinedeployments", Kind: "MachineDeployment", Namespaced: true},
	},
	"apis/bootstrap.cluster.x-k8s.io/v1alpha3":     {{Name: "talosconfigtemplates", Kind: "TalosConfigTemplate", Namespaced: true}},
	"apis/infrastructure.cluster.x-k8s.io/v1beta1": {{Name: "hcloudmachinetemplates", Kind: "HCloudMachineTemplate", Namespaced: true}},
	"apis/controlplane.cluster.x-k8s.io/v1alpha3":  {{Name: "taloscontrolplanes", Kind: "TalosControlPlane", Namespaced: true}},
}

// A standIn holds objects and serves lists in pages, single objects, creation, apply, merge patches and deletion.
type standIn struct {
	mu      sync.Mutex
	objects map[string]*unstructured.Unstructured // by path
	nodes   map[string]*corev1.Node               // the same, as far as they were asked for in the binary form
	order   []string
	hasCAPI bool
	// Fault is asked before every request; what it returns is answered.
	fault   func(*http.Request) int
	version int
	log     []change      // all that ever changed
	more    chan struct{} // closed at the next change
	broken  chan struct{} // closed when the watches are cut
}

// A change is what a watch tells of.
type change struct {
	version int
	key     string
	kind    string // ADDED, MODIFIED, DELETED
	object  map[string]any
}

// A StandIn is an API server that is not Kubernetes': a small one for where the real one is not at hand.
type StandIn struct {
	*Kube
	s *standIn
}

// NewStandIn starts one.
func NewStandIn(clusterAPI bool) *StandIn {
	s := &standIn{objects: map[string]*unstructured.Unstructured{}, nodes: map[string]*corev1.Node{}, hasCAPI: clusterAPI, more: make(chan struct{}), broken: make(chan struct{})}
	server := httptest.NewTLSServer(s)
	return &StandIn{Kube: &Kube{
		What: "a small stand-in for the API server",
		Config: &rest.Config{Host: server.URL, BearerToken: "admin-of-the-lab", TLSClientConfig: rest.TLSClientConfig{
			CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		}},
		close: func() error { server.Close(); return nil },
	}, s: s}
}

// Fault lets f answer requests with an HTTP status; 0 is the truth.
func (s *StandIn) Fault(f func(*http.Request) int) {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.s.fault = f
}

// Add puts an object in without a request.
func (s *StandIn) Add(resource schema.GroupVersionResource, o *unstructured.Unstructured) {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	prefix := "apis/" + resource.Group + "/" + resource.Version
	if resource.Group == "" {
		prefix = "api/" + resource.Version
	}
	s.s.put(prefix+"/"+resource.Resource+"/"+o.GetNamespace()+"/"+o.GetName(), o)
}

// ServeClusterAPI begins or ends to serve the kinds of Cluster API.
func (s *StandIn) ServeClusterAPI(serve bool) {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.s.hasCAPI = serve
}

// Cut ends every watch that goes on.
func (s *StandIn) Cut() {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	close(s.s.broken)
	s.s.broken = make(chan struct{})
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		if code := fault(r); code != 0 {
			kubeStatus(w, code, http.StatusText(code), http.StatusText(code))
			return
		}
	}
	if r.Header.Get("Authorization") != "Bearer admin-of-the-lab" {
		kubeStatus(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.Trim(r.URL.Path, "/")
	switch path {
	case "api":
		kubeAnswer(w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
		return
	case "apis":
		s.groups(w)
		return
	}
	for prefix, resources := range standInServes {
		rest, ok := strings.CutPrefix(path+"/", prefix+"/")
		if !ok || !s.hasCAPI && strings.Contains(prefix, "x-k8s") {
			continue
		}
		if rest = strings.Trim(rest, "/"); rest == "" {
			kubeAnswer(w, http.StatusOK, metav1.APIResourceList{
				TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: strings.TrimPrefix(strings.TrimPrefix(prefix, "apis/"), "api/"), APIResources: resources,
			})
			return
		}
		s.resource(w, r, prefix, rest)
		return
	}
	kubeStatus(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource")
}

func (s *standIn) groups(w http.ResponseWriter) {
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for prefix := range standInServes {
		group, ok := strings.CutPrefix(prefix, "apis/")
		if !ok || !s.hasCAPI {
			continue
		}
		name, version, _ := strings.Cut(group, "/")
		v := metav1.GroupVersionForDiscovery{GroupVersion: group, Version: version}
		list.Groups = append(list.Groups, metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
	}
	kubeAnswer(w, http.StatusOK, list)
}

// resource serves one path: [namespaces/NS/]RESOURCE[/NAME][/status].
func (s *standIn) resource(w http.ResponseWriter, r *http.Request, prefix, rest string) {
	parts := strings.Split(rest, "/")
	namespace := ""
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	kind := parts[0]
	at := func(name string) string { return prefix + "/" + kind + "/" + namespace + "/" + name }
	body, _ := io.ReadAll(r.Body) //nolint:errcheck // then it is no object
	decode := func() *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		if err := json.Unmarshal(body, &o.Object); err != nil {
			kubeStatus(w, http.StatusBadRequest, "BadRequest", err.Error())
			return nil
		}
		return o
	}
	if len(parts) == 1 {
		switch r.Method {
		case http.MethodGet:
			all := strings.TrimSuffix(prefix+"/"+kind+"/"+namespace, "/") + "/"
			if r.URL.Query().Get("watch") != "" {
				s.watch(w, r, all)
				return
			}
			s.list(w, r, all)
		case http.MethodPost:
			if o := decode(); o != nil {
				s.put(at(o.GetName()), o)
				kubeAnswer(w, http.StatusCreated, o)
			}
		}
		return
	}
	key := at(parts[1])
	old := s.objects[key]
	switch {
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml", r.Method == http.MethodPut:
		if o := decode(); o != nil {
			s.put(key, o)
			kubeAnswer(w, http.StatusOK, o)
		}
	case old == nil:
		kubeStatus(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", kind, parts[1]))
	case r.Method == http.MethodDelete:
		s.version++
		s.note(key, "DELETED", old)
		delete(s.objects, key)
		s.order = slices.DeleteFunc(s.order, func(k string) bool { return k == key })
		kubeAnswer(w, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Success"})
	case r.Method == http.MethodPatch:
		if o := decode(); o != nil {
			merged := old.DeepCopy()
			merge(merged.Object, o.Object)
			s.put(key, merged)
			kubeAnswer(w, http.StatusOK, merged)
		}
	default:
		kubeAnswer(w, http.StatusOK, old)
	}
}

func merge(into, from map[string]any) {
	for k, v := range from {
		a, deep := into[k].(map[string]any)
		b, ok := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case deep && ok:
			merge(a, b)
		default:
			into[k] = v
		}
	}
}

func (s *standIn) put(key string, o *unstructured.Unstructured) {
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	if created := o.GetCreationTimestamp(); created.IsZero() {
		o.SetCreationTimestamp(metav1.Now())
	}
	kind := "MODIFIED"
	if s.objects[key] == nil {
		s.order = append(s.order, key)
		kind = "ADDED"
	}
	s.objects[key] = o
	delete(s.nodes, key)
	s.note(key, kind, o)
}

// note tells the watches.
func (s *standIn) note(key, kind string, o *unstructured.Unstructured) {
	s.log = append(s.log, change{s.version, key, kind, o.DeepCopy().Object})
	close(s.more)
	s.more = make(chan struct{})
}

// watch streams the changes after a version until the reader goes. It is called, and returns, with the lock held.
func (s *standIn) watch(w http.ResponseWriter, r *http.Request, prefix string) {
	if r.URL.Query().Get("sendInitialEvents") != "" { // as an API server that cannot do this: the client lists then
		kubeStatus(w, http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents is forbidden here")
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion")) //nolint:errcheck // 0: from the start
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	told := 0
	for {
		for ; told < len(s.log); told++ {
			c := s.log[told]
			if c.version > from && strings.HasPrefix(c.key, prefix) {
				if json.NewEncoder(w).Encode(map[string]any{"type": c.kind, "object": c.object}) != nil {
					return
				}
			}
		}
		w.(http.Flusher).Flush()
		more, broken := s.more, s.broken
		s.mu.Unlock()
		select {
		case <-more:
		case <-broken:
			s.mu.Lock()
			return
		case <-r.Context().Done():
			s.mu.Lock()
			return
		}
		s.mu.Lock()
	}
}

// list gives out a page; the continuation is where it goes on.
func (s *standIn) list(w http.ResponseWriter, r *http.Request, prefix string) {
	var keys []string
	for _, k := range s.order {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))   //nolint:errcheck // 0: no limit
	from, _ := strconv.Atoi(r.URL.Query().Get("continue")) //nolint:errcheck // 0: from the start
	from = min(from, len(keys))
	to := len(keys)
	list := map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}}
	if limit > 0 && from+limit < to {
		to = from + limit
		list["metadata"].(map[string]any)["continue"] = strconv.Itoa(to)
	}
	if prefix == "api/v1/nodes/" && strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		s.listNodes(w, keys[from:to], list["metadata"].(map[string]any))
		return
	}
	items := make([]any, 0, to-from)
	for _, k := range keys[from:to] {
		items = append(items, s.objects[k].Object)
	}
	list["items"] = items
	kubeAnswer(w, http.StatusOK, list)
}

// listNodes answers in Kubernetes' binary form, as the API server does whoever takes it.
func (s *standIn) listNodes(w http.ResponseWriter, keys []string, meta map[string]any) {
	list := &corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}}
	list.ResourceVersion, _ = meta["resourceVersion"].(string)
	list.Continue, _ = meta["continue"].(string)
	for _, k := range keys {
		n := s.nodes[k]
		if n == nil {
			n = &corev1.Node{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(s.objects[k].Object, n); err != nil {
				kubeStatus(w, http.StatusInternalServerError, "InternalError", err.Error())
				return
			}
			s.nodes[k] = n
		}
		list.Items = append(list.Items, *n)
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	_ = protobuf.NewSerializer(nil, nil).Encode(list, w) //nolint:errcheck // the client has gone
}

func kubeAnswer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // the client has gone
}

func kubeStatus(w http.ResponseWriter, code int, reason, message string) {
	kubeAnswer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: metav1.StatusReason(strings.ReplaceAll(reason, " ", "")), Message: message,
	})
}
