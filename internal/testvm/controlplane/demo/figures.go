//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/controlplane"
)

// late is by how much the metadata service is, where it is late.
const late = 20 * time.Second

// A figure is what one boot of one server took, and under which names its member and its node were first seen.
type figure struct {
	member, ready    time.Duration
	memberIs, nodeIs string
}

// figures boots a server n times in each of four ways, and prints the medians as Markdown.
func (s *show) figures(ctx context.Context, n int) error {
	w := tabwriter.NewWriter(s.out, 0, 0, 1, ' ', 0)
	fmt.Fprintf(w, "| the metadata service answers\t| nametag\t| first MemberList\t| member\t| a node is ready\t| node\t|\n| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|\n")
	for _, after := range []time.Duration{0, late} {
		for _, policy := range []string{"", "2m"} {
			var all []figure
			for range n {
				f, err := s.figure(ctx, after, policy)
				if err != nil {
					return err
				}
				all = append(all, f)
			}
			answers, with := "at once", "no"
			if after > 0 {
				answers = fmt.Sprintf("%s after power-on", after)
			}
			if policy != "" {
				with = "yes"
			}
			median := func(of func(figure) time.Duration) time.Duration {
				slices.SortFunc(all, func(a, b figure) int { return int(of(a) - of(b)) })
				return of(all[len(all)/2]).Round(100 * time.Millisecond)
			}
			fmt.Fprintf(w, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", answers, with,
				median(func(f figure) time.Duration { return f.member }), all[0].memberIs, median(func(f figure) time.Duration { return f.ready }), all[0].nodeIs)
		}
	}
	return w.Flush()
}

func (s *show) figure(ctx context.Context, after time.Duration, policy string) (f figure, err error) {
	c, err := controlplane.New(ctx, s.tools)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	server, err := c.Create(first)
	if err != nil {
		return f, err
	}
	server.Metadata(after == 0)
	began := time.Now()
	timer := time.AfterFunc(after, func() { server.Metadata(true) })
	defer timer.Stop()
	if err := server.Boot(ctx, policy); err != nil {
		return f, err
	}
	stop := s.controllers(ctx, c, server)
	defer stop()
	is := func(name string) string {
		if name == first {
			return "the server's name"
		}
		return "an invented name"
	}
	if err := waits(ctx, c, "a member", func() (bool, error) {
		m, err := c.Members(ctx, server)
		if err != nil || len(m) != 1 || m[0].Name == "" {
			return false, err
		}
		f.member, f.memberIs = time.Since(began), is(m[0].Name)
		return true, nil
	}); err != nil {
		return f, err
	}
	err = waits(ctx, c, "a node that is ready", func() (bool, error) {
		nodes, err := c.Nodes(ctx, server)
		for _, n := range nodes {
			if n.Ready {
				f.ready, f.nodeIs = time.Since(began), is(n.Name)
				return true, nil
			}
		}
		return false, err
	})
	return f, err
}
