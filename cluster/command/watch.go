package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/nametag-boot/nametag/cluster/audit"
	"github.com/nametag-boot/nametag/cluster/source"
	"github.com/nametag-boot/nametag/cluster/watch"
)

// watchOptions are those of --watch.
type watchOptions struct {
	on       bool
	interval time.Duration
	listen   string
	lease    string
	events   bool
}

func (o *auditOptions) watchFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.watch.on, "watch", false, "audit until a signal comes, and serve /metrics, /healthz, /readyz and a page")
	f.StringVar(&o.watch.listen, "listen", "127.0.0.1:9477", "with --watch: where to serve")
	f.DurationVar(&o.watch.interval, "interval", time.Minute, "with --watch: how often to look, besides after each change in Kubernetes and Cluster API")
	f.StringVar(&o.watch.lease, "leader-elect", "", "with --watch: of several processes only the holder of this Lease audits, NAMESPACE/NAME")
	f.BoolVar(&o.watch.events, "events", false, "with --watch: make an Event on the node of a finding that comes or goes")
}

// runWatch audits until the context ends.
func (o *auditOptions) runWatch(ctx context.Context, cmd *cobra.Command) error {
	if o.watch.interval < time.Second {
		return usage("--interval: a second at least")
	}
	w := &watch.Watcher{
		Auditor:  &audit.Auditor{Grace: o.grace, Cluster: o.cluster},
		Interval: o.watch.interval, Timeout: o.timeout,
		Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
	}
	klog.SetSlogLogger(w.Log) // what the client of Kubernetes has to say goes the same way
	readers, err := o.readers()
	if err != nil {
		return err
	}
	if w.Store, err = o.store(); err != nil {
		return err
	}
	if o.watch.events {
		config, err := o.needKube("--events")
		if err != nil {
			return err
		}
		if w.Tell, err = watch.Events(config); err != nil {
			return usage("--events: %w", err)
		}
	}
	watching, err := watched(readers, w.Changed)
	if err != nil {
		return err
	}
	w.Readers = readers
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.watch.listen)
	if err != nil {
		return usage("--listen: %w", err)
	}
	server := &http.Server{Handler: w.Handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	w.Log.Info("listening", "address", listener.Addr().String(), "version", o.version)
	run := func(ctx context.Context) {
		var all sync.WaitGroup
		for _, s := range watching {
			all.Go(func() { s.Run(ctx) })
		}
		w.Run(ctx)
		all.Wait()
	}
	if o.watch.lease == "" {
		run(ctx)
	} else if err := o.elected(ctx, w.Log, run); err != nil {
		return errors.Join(err, server.Close())
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		return &exitError{exitSource, err}
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return &exitError{exitSource, err}
	}
	return nil
}

// watched puts sources that are watched in the place of those that can be, and gives them.
func watched(readers []source.Reader, changed func()) ([]source.Watched, error) {
	var all []source.Watched
	for i, r := range readers {
		var w source.Watched
		var err error
		switch r := r.(type) {
		case *source.Kubernetes:
			w, err = source.NewWatchedNodes(r.Config, changed)
		case *source.ClusterAPI:
			w, err = source.NewWatchedClusterAPI(r, changed)
		default:
			continue
		}
		if err != nil {
			return nil, usage("%s: %w", r.Source(), err)
		}
		readers[i] = w
		all = append(all, w)
	}
	return all, nil
}

// elected runs while this process holds the lease. Having lost it, it ends: what starts it anew starts with nothing old in mind.
func (o *auditOptions) elected(ctx context.Context, log *slog.Logger, run func(context.Context)) error {
	namespace, name, ok := strings.Cut(o.watch.lease, "/")
	if !ok || namespace == "" || name == "" {
		return usage("--leader-elect: %q is not NAMESPACE/NAME", o.watch.lease)
	}
	config, err := o.needKube("--leader-elect")
	if err != nil {
		return err
	}
	config = rest.CopyConfig(config)
	config.ContentType = "application/json" // one form on the wire for all that is asked
	client, err := coordination.NewForConfig(config)
	if err != nil {
		return usage("--leader-elect: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return &exitError{exitSource, err}
	}
	identity := fmt.Sprintf("%s_%d", host, os.Getpid())
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Client: client, LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: run,
			OnStoppedLeading: func() { log.Info("the lease is given up", "lease", o.watch.lease) },
			OnNewLeader:      func(who string) { log.Info("the lease is held", "by", who) },
		},
	})
	if err != nil {
		return usage("--leader-elect: %w", err)
	}
	elector.Run(ctx)
	if ctx.Err() == nil {
		return &exitError{exitSource, fmt.Errorf("the lease %s was lost", o.watch.lease)}
	}
	return nil
}

func (o *auditOptions) needKube(flag string) (*rest.Config, error) {
	config, err := kube(o.kubeconfig, o.context)
	if err != nil {
		return nil, err
	}
	if config == nil {
		return nil, usage("%s needs a kubeconfig", flag)
	}
	return config, nil
}
