package source

import (
	"context"
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// WatchedNodes is the Nodes, watched instead of listed anew for every round. Of each node only what the audit looks at is kept.
type WatchedNodes struct {
	informer cache.SharedIndexInformer

	mu     sync.Mutex
	failed error // what ended the last list or watch; nil while one goes on
}

// NewWatchedNodes makes the source. changed is called after every change; it must not block.
func NewWatchedNodes(config *rest.Config, changed func()) (*WatchedNodes, error) {
	client, err := dynamic.NewForConfig(quick(config))
	if err != nil {
		return nil, err
	}
	w := &WatchedNodes{failed: errors.New("not listed yet")}
	nodes := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"})
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := nodes.List(ctx, o)
			w.note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			started, err := nodes.Watch(ctx, o)
			w.note(err)
			return started, err
		},
	}
	w.informer = cache.NewSharedIndexInformer(lw, &unstructured.Unstructured{}, 0, cache.Indexers{})
	if err := w.informer.SetTransform(slim); err != nil {
		return nil, err
	}
	_, err = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, DeleteFunc: func(any) { changed() },
		UpdateFunc: func(before, after any) {
			if differ(before, after) {
				changed()
			}
		},
	})
	return w, err
}

func (w *WatchedNodes) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
}

// Run watches until the context ends.
func (w *WatchedNodes) Run(ctx context.Context) { w.informer.RunWithContext(ctx) }

// Source is audit.Kubernetes.
func (*WatchedNodes) Source() audit.Source { return audit.Kubernetes }

// Read gives the nodes as they were seen last. While the watch is broken it fails: what was seen before the break is not what is.
func (w *WatchedNodes) Read(ctx context.Context, into *audit.Snapshot) error {
	if !cache.WaitForCacheSync(ctx.Done(), w.informer.HasSynced) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return fmt.Errorf("nodes: %w", errors.Join(context.Cause(ctx), w.failed))
	}
	w.mu.Lock()
	failed := w.failed
	w.mu.Unlock()
	if failed != nil {
		return fmt.Errorf("nodes: the watch is broken: %w", failed)
	}
	for _, o := range w.informer.GetStore().List() {
		node, err := Node(o.(*unstructured.Unstructured).DeepCopy())
		if err != nil {
			return err
		}
		into.Nodes = append(into.Nodes, node)
	}
	return nil
}

// slim leaves of a node what the audit looks at: a node's images alone are most of its bytes.
func slim(object any) (any, error) {
	o, ok := object.(*unstructured.Unstructured)
	if !ok {
		return object, nil
	}
	for _, path := range [][]string{
		{"metadata", "managedFields"},
		{"metadata", "annotations"},
		{"status", "images"},
		{"status", "nodeInfo"},
		{"status", "capacity"},
		{"status", "allocatable"},
		{"status", "volumesInUse"},
		{"status", "volumesAttached"},
		{"status", "config"},
		{"status", "runtimeHandlers"},
	} {
		unstructured.RemoveNestedField(o.Object, path...)
	}
	return o, nil
}

// differ reports whether a change is one for the audit: a kubelet's heartbeat is not.
func differ(before, after any) bool {
	b, ok1 := before.(*unstructured.Unstructured)
	a, ok2 := after.(*unstructured.Unstructured)
	if !ok1 || !ok2 {
		return true
	}
	x, err1 := Node(b.DeepCopy())
	y, err2 := Node(a.DeepCopy())
	return err1 != nil || err2 != nil || fmt.Sprint(x) != fmt.Sprint(y)
}
