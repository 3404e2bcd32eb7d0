package source

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// A Watched source keeps what it reads up to date by itself, instead of asking anew for every round.
type Watched interface {
	Reader
	// Run watches until the context ends. What is read before it was called waits for it.
	Run(ctx context.Context)
}

// WatchedNodes is the Nodes, watched.
type WatchedNodes struct {
	objects *watched[*corev1.Node, audit.Node]
}

// NewWatchedNodes makes the source. changed is called after every change that the audit could see; it must not block.
func NewWatchedNodes(config *rest.Config, changed func()) (*WatchedNodes, error) {
	client, err := nodesOf(config)
	if err != nil {
		return nil, err
	}
	objects, err := watchAll("nodes", &corev1.Node{}, listNodes(client), client.Watch, Node, changed)
	return &WatchedNodes{objects}, err
}

// Source is audit.Kubernetes.
func (*WatchedNodes) Source() audit.Source { return audit.Kubernetes }

// Run watches until the context ends.
func (w *WatchedNodes) Run(ctx context.Context) { w.objects.informer.RunWithContext(ctx) }

// Read gives the nodes as they were seen last.
func (w *WatchedNodes) Read(ctx context.Context, into *audit.Snapshot) (err error) {
	into.Nodes, err = w.objects.all(ctx)
	return err
}

// WatchedClusterAPI is the Machines and control planes of a management cluster, watched. Which kinds are served, and in which
// versions, is asked in every round: a provider may be installed or brought up to date while we watch.
type WatchedClusterAPI struct {
	from    ClusterAPI
	finder  *discovery.DiscoveryClient
	client  dynamic.Interface
	changed func()

	began chan struct{} // closed when there is a context to watch under
	ctx   context.Context

	mu       sync.Mutex
	watching sync.WaitGroup
	clusters kind[clusterPause]
	machines kind[audit.Machine]
	planes   map[string]*kind[audit.ControlPlane]
}

// NewWatchedClusterAPI makes the source. changed is called after every change that the audit could see; it must not block.
func NewWatchedClusterAPI(from *ClusterAPI, changed func()) (*WatchedClusterAPI, error) {
	finder, client, err := from.clients()
	if err != nil {
		return nil, err
	}
	return &WatchedClusterAPI{
		from: *from, finder: finder, client: client, changed: changed, began: make(chan struct{}), planes: map[string]*kind[audit.ControlPlane]{},
	}, nil
}

// Source is audit.ClusterAPI.
func (*WatchedClusterAPI) Source() audit.Source { return audit.ClusterAPI }

// Run watches until the context ends.
func (w *WatchedClusterAPI) Run(ctx context.Context) {
	w.ctx = ctx
	close(w.began)
	<-ctx.Done()
	w.mu.Lock() // no watch begins from here on
	defer w.mu.Unlock()
	w.watching.Wait()
}

// Read gives the objects as they were seen last, of the kinds that are served now.
func (w *WatchedClusterAPI) Read(ctx context.Context, into *audit.Snapshot) error {
	select {
	case <-w.began:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	served, notServed := w.from.served(w.finder)
	if notServed != nil && !errors.Is(notServed, errNotServed) {
		return notServed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ctx.Err(); err != nil {
		return err
	}
	// All watches begin before the first is waited for; where nothing is served any more, they end.
	err := errors.Join(
		w.clusters.follow(w, served[clusters], pauseOf),
		w.machines.follow(w, served[machines], machine),
	)
	for _, name := range controlPlanes {
		if w.planes[name] == nil {
			w.planes[name] = &kind[audit.ControlPlane]{}
		}
		err = errors.Join(err, w.planes[name].follow(w, served[name], controlPlane))
	}
	if err := errors.Join(notServed, err); err != nil {
		return err
	}
	var parts clusterAPIParts
	if parts.clusters, err = w.clusters.all(ctx); err != nil {
		return err
	}
	if parts.machines, err = w.machines.all(ctx); err != nil {
		return err
	}
	for _, name := range controlPlanes {
		found, err := w.planes[name].all(ctx)
		if err != nil {
			return err
		}
		parts.planes = append(parts.planes, found...)
	}
	parts.put(into)
	return nil
}

// A kind is the objects of one kind, in the version that is served.
type kind[T any] struct {
	resource schema.GroupVersionResource
	objects  *watched[*unstructured.Unstructured, T]
	stop     context.CancelFunc
}

// follow watches the resource, and no longer the one before it; the empty one is none. w is locked.
func (k *kind[T]) follow(w *WatchedClusterAPI, resource schema.GroupVersionResource, of func(*unstructured.Unstructured) T) error {
	if k.resource == resource {
		return nil
	}
	if k.stop != nil {
		k.stop()
	}
	*k = kind[T]{}
	if resource.Empty() {
		return nil
	}
	client := w.client.Resource(resource)
	objects, err := watchAll(resource.Resource, &unstructured.Unstructured{}, listObjects(client), client.Watch, of, w.changed)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(w.ctx)
	w.watching.Go(func() { objects.informer.RunWithContext(ctx) })
	*k = kind[T]{resource, objects, stop}
	return nil
}

func (k *kind[T]) all(ctx context.Context) ([]T, error) {
	if k.objects == nil {
		return nil, nil
	}
	return k.objects.all(ctx)
}

// watched is the objects of one kind as they were seen last. Of each only what the audit looks at is kept.
type watched[O metav1.Object, T any] struct {
	what     string
	informer cache.SharedIndexInformer

	mu     sync.Mutex
	failed error // what ended the last list or watch; nil while one goes on
}

func watchAll[O metav1.Object, T any](
	what string, example runtime.Object, list lister[O], begin func(context.Context, metav1.ListOptions) (watch.Interface, error), of func(O) T, changed func(),
) (*watched[O, T], error) {
	w := &watched[O, T]{what: what, failed: errors.New("not listed yet")}
	see := func(o O) *seen[T] {
		return &seen[T]{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
		}, is: of(o)}
	}
	w.informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		// In pages, whatever the informer asks for: a server may answer it with everything at once, which is most of a pod's memory.
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			all := &seenList{}
			version, err := pages(ctx, list, func() { all.Items = nil }, func(o O) { all.Items = append(all.Items, see(o)) })
			all.ResourceVersion = version
			w.note(err)
			return all, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			started, err := begin(ctx, o)
			// A list as a watch is the newer way, and the first question put to an older server: its answer is no failure.
			if err == nil || !apierrors.IsInvalid(err) {
				w.note(err)
			}
			return started, err
		},
	}, example, 0, cache.Indexers{})
	err := w.informer.SetTransform(func(object any) (any, error) {
		if o, ok := object.(O); ok {
			return see(o), nil
		}
		return object, nil
	})
	if err != nil {
		return nil, err
	}
	_, err = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, DeleteFunc: func(any) { changed() },
		UpdateFunc: func(before, after any) {
			b, ok1 := before.(*seen[T])
			a, ok2 := after.(*seen[T])
			if !ok1 || !ok2 || !reflect.DeepEqual(b.is, a.is) { // a kubelet's heartbeat is no change
				changed()
			}
		},
	})
	return w, err
}

func (w *watched[O, T]) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
}

// all gives the objects. While the watch is broken it fails: what was seen before the break is not what is.
func (w *watched[O, T]) all(ctx context.Context) ([]T, error) {
	synced := cache.WaitForCacheSync(ctx.Done(), w.informer.HasSynced)
	w.mu.Lock()
	failed := w.failed
	w.mu.Unlock()
	switch {
	case !synced:
		return nil, fmt.Errorf("%s: %w", w.what, errors.Join(context.Cause(ctx), failed))
	case failed != nil:
		return nil, fmt.Errorf("%s: the watch is broken: %w", w.what, failed)
	}
	var all []T
	for _, o := range w.informer.GetStore().List() {
		all = append(all, o.(*seen[T]).is)
	}
	return all, nil
}

// seen is what is kept of an object, under what an informer has to know of it.
type seen[T any] struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	is T
}

// DeepCopyObject is what makes it an object. Nobody changes one.
func (s *seen[T]) DeepCopyObject() runtime.Object {
	c := *s
	return &c
}

// seenList is a list of what is kept.
type seenList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject is what makes it an object.
func (l *seenList) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = slices.Clone(l.Items)
	return &c
}
