//go:build linux

// Command bench measures, side by side in one run on one machine, how long nametag and what else one might pick take to
// a server's name: from exec to the first full line on standard output, over a NIC that is down and bare, in the lab.
//
// Every run has a fresh node and its own cloud. The clients take turns, so that the machine's moods hit all of them
// alike; those that wait for timers of seconds take theirs beside one another. No run lasts longer than a bound, and
// nothing that a client starts outlives its run.
//
// It writes README.md, comparison.svg and figures.json to docs/bench. The first two are made from the third, and
// -render makes them again without measuring.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

type options struct {
	out        string
	nametag    string
	before     string
	quick      bool
	render     bool
	install    bool
	starts     bool
	wanted     string
	conditions string
}

func main() {
	var o options
	flag.StringVar(&o.out, "out", "docs/bench", "the folder for the table, the picture and the figures; empty: write nothing, print all of it")
	flag.StringVar(&o.nametag, "nametag", "", "the binary to measure; empty: build it")
	flag.StringVar(&o.before, "before", "", "another nametag, to be measured beside it, in turns: that of an earlier version; writes nothing, as -out ''")
	flag.BoolVar(&o.quick, "quick", false, "fewer runs and conditions: a look in a minute or two, not a comparison")
	flag.BoolVar(&o.render, "render", false, "measure nothing; make table and picture anew from the figures in -out")
	flag.BoolVar(&o.install, "install", true, "as root on Debian, install the clients that are missing")
	flag.BoolVar(&o.starts, "starts", false, "measure what starts cost only, and keep the other figures in -out")
	flag.StringVar(&o.wanted, "clients", "", "a regular expression: measure these clients only")
	flag.StringVar(&o.conditions, "conditions", "", "a regular expression: measure under these conditions only, such as 'public, 0s', and keep the figures of the others")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func bench(ctx context.Context, o options) error {
	if o.render {
		f, err := load(filepath.Join(o.out, figuresFile))
		if err != nil {
			return err
		}
		return write(o.out, f)
	}
	if o.before != "" {
		o.out = "" // the pages compare nametag with others, not with itself
	}
	if o.install {
		install(ctx, os.Stderr)
	}
	// From here on perhaps as the only user of a user namespace.
	if err := netns.Enter(); err != nil {
		return err
	}
	return withTools(ctx, o, func(t tools) error {
		if o.starts {
			return startsOnly(ctx, t, o.out)
		}
		return everything(ctx, t, o)
	})
}

// everything measures all that is wanted, and writes it where it is to stand.
func everything(ctx context.Context, t tools, o options) error {
	f, err := measureAll(ctx, os.Stderr, t, o)
	if err != nil {
		return err
	}
	if o.out == "" {
		_, err := io.WriteString(os.Stdout, summary(f)+tables(f))
		return err
	}
	if o.conditions != "" {
		earlier, err := load(filepath.Join(o.out, figuresFile))
		if err == nil {
			err = f.with(earlier)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := write(o.out, f); err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, summary(f))
	return err
}

// withTools builds what is measured, for as long as it is.
func withTools(ctx context.Context, o options, measure func(tools) error) (err error) {
	dir, err := os.MkdirTemp("", "nametag-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t, err := prepare(ctx, dir, o.nametag, o.before)
	if err != nil {
		return err
	}
	return measure(t)
}

// measureAll measures all that is wanted. progress gets a line for each condition.
func measureAll(ctx context.Context, progress io.Writer, t tools, o options) (*figures, error) {
	all, err := clients(ctx, t, o.wanted)
	if err != nil {
		return nil, err
	}
	conditions, err := plan(o.quick, o.conditions)
	if err != nil {
		return nil, err
	}

	f := &figures{Machine: machine(), Quick: o.quick, Clients: make([]clientFigures, len(all))}
	began := time.Now()
	for i, c := range all {
		f.Clients[i] = clientFigures{Name: c.name, Note: c.note, Missing: c.missing}
		if c.missing != "" {
			fmt.Fprintf(progress, "bench: without %s: %s\n", c.name, c.missing)
			continue
		}
		if f.Clients[i].Size, f.Clients[i].Packed, err = sizes(ctx, c.binaries); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(progress, "bench: starts\n")
	if err := f.measureStarts(ctx, t); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "bench: peak memory\n")
	if err := memory(ctx, all, f); err != nil {
		return nil, err
	}
	if f.Series, err = measure(ctx, progress, all, conditions); err != nil {
		return nil, err
	}
	f.Machine.Took = time.Since(began).Round(time.Second).String()
	return f, nil
}

// startsOnly measures starts, and puts them beside the figures that are there, if they are to stand anywhere.
func startsOnly(ctx context.Context, t tools, out string) (err error) {
	f := &figures{}
	if out != "" {
		if f, err = load(filepath.Join(out, figuresFile)); err != nil {
			return err
		}
	}
	if err := f.measureStarts(ctx, t); err != nil {
		return err
	}
	if out != "" {
		if err := write(out, f); err != nil {
			return err
		}
	}
	b := new(strings.Builder)
	startTable(b, f)
	if out != "" {
		promised(b, f)
	}
	_, err = io.WriteString(os.Stdout, b.String())
	return err
}

// lanes is how many clients that wait for timers may run beside one another.
func lanes() int { return 4 * runtime.NumCPU() }
