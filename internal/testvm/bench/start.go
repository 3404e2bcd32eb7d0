//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What starts, from exec to exit.
const (
	startEmpty   = "an empty Go program"
	startHTTP    = "one that imports net/http"
	startNametag = "nametag --version"
	startBefore  = nametagBefore + " --version"
)

// startRuns is how often each is started; they take turns.
const startRuns = 40

// startFigures are the starts of one program, and the packages of our own binary whose initialisation takes the longest.
type startFigures struct {
	Name string    `json:"name"`
	Size int       `json:"size"`
	Runs []float64 `json:"ms"`
	// Init is the packages' initialisation as the runtime traces it, medians over as many runs, in order of time. Those
	// that take less than a microsecond are left out.
	Init []initFigures `json:"init"`
}

type initFigures struct {
	Package string  `json:"package"`
	Clock   float64 `json:"ms"`
	Bytes   int     `json:"bytes"`
}

// all is what the initialisation of all packages takes, in ms.
func (s startFigures) all() float64 {
	sum := 0.0
	for _, p := range s.Init {
		sum += p.Clock
	}
	return sum
}

// starts measures what starts cost.
func starts(ctx context.Context, t tools) ([]startFigures, error) {
	var argv [][]string
	var all []startFigures
	for _, p := range []struct{ name, command string }{{startEmpty, "empty"}, {startHTTP, "nethttp"}} {
		binary := filepath.Join(t.dir, p.command)
		if err := build(ctx, binary, "internal/testvm/bench/start/"+p.command); err != nil {
			return nil, err
		}
		all, argv = append(all, startFigures{Name: p.name}), append(argv, []string{binary})
	}
	all, argv = append(all, startFigures{Name: startNametag}), append(argv, []string{t.nametag, "--version"})
	if t.before != "" {
		all, argv = append(all, startFigures{Name: startBefore}), append(argv, []string{t.before, "--version"})
	}
	for i := range all {
		info, err := os.Stat(argv[i][0])
		if err != nil {
			return nil, err
		}
		all[i].Size = int(info.Size())
	}
	traces := make([]map[string][]initFigures, len(all))
	for turn := -1; turn < startRuns; turn++ { // the first warms the page cache, and does not count
		for i := range all {
			took, err := start(ctx, argv[i])
			if err != nil {
				return nil, err
			}
			trace, err := inits(ctx, argv[i])
			if err != nil {
				return nil, err
			}
			if turn < 0 {
				traces[i] = make(map[string][]initFigures)
				continue
			}
			all[i].Runs = append(all[i].Runs, ms(took))
			for _, p := range trace {
				traces[i][p.Package] = append(traces[i][p.Package], p)
			}
		}
	}
	for i := range all {
		all[i].Init = middle(traces[i])
	}
	return all, nil
}

// measureStarts puts what starts cost into the figures.
func (f *figures) measureStarts(ctx context.Context, t tools) (err error) {
	f.StartLoad = load1()
	f.Starts, err = starts(ctx, t)
	return err
}

// start is one, from exec to exit.
func start(ctx context.Context, argv []string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", strings.Join(argv, " "), err)
	}
	return took, nil
}

// inits is what the runtime says of each package's initialisation (runtime/extern.go, GODEBUG inittrace).
func inits(ctx context.Context, argv []string) ([]initFigures, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(argv, " "), err)
	}
	return parseInits(said.String())
}

// parseInits reads lines such as `init net/http @0.71 ms, 0.033 ms clock, 8472 bytes, 62 allocs`.
func parseInits(said string) ([]initFigures, error) {
	var all []initFigures
	for line := range strings.Lines(said) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "init" {
			continue
		}
		if len(words) != 11 || words[5] != "ms" || words[8] != "bytes," {
			return nil, fmt.Errorf("inittrace: %q is no such line", strings.TrimSpace(line))
		}
		clock, err := strconv.ParseFloat(words[4], 64)
		if err != nil {
			return nil, fmt.Errorf("inittrace: %q: %w", strings.TrimSpace(line), err)
		}
		size, err := strconv.Atoi(words[7])
		if err != nil {
			return nil, fmt.Errorf("inittrace: %q: %w", strings.TrimSpace(line), err)
		}
		all = append(all, initFigures{Package: words[1], Clock: clock, Bytes: size})
	}
	return all, nil
}

// middle is the median of each package, in order of time.
func middle(traces map[string][]initFigures) []initFigures {
	var all []initFigures
	for name, runs := range traces {
		clocks := make([]float64, len(runs))
		for i, r := range runs {
			clocks[i] = r.Clock
		}
		if clock := median(clocks); clock >= 0.001 {
			all = append(all, initFigures{Package: name, Clock: clock, Bytes: runs[0].Bytes})
		}
	}
	slices.SortFunc(all, func(a, b initFigures) int {
		return cmp.Or(cmp.Compare(b.Clock, a.Clock), cmp.Compare(a.Package, b.Package))
	})
	return all
}

// start is a program's starts, if they were measured.
func (f *figures) start(name string) (startFigures, bool) {
	i := slices.IndexFunc(f.Starts, func(s startFigures) bool { return s.Name == name && len(s.Runs) > 0 })
	if i < 0 {
		return startFigures{}, false
	}
	return f.Starts[i], true
}

// mostInits is how many packages the page lists.
const mostInits = 12

// startTable is the page's part on starts.
func startTable(b *strings.Builder, f *figures) {
	if len(f.Starts) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## What a start costs\n\nFrom exec to exit in ms, %d starts each, in turns; load average %s. All are built as nametag is.\n\n", startRuns, f.StartLoad)
	b.WriteString("| program | size MiB | median | min | max | packages' initialisation |\n| --- |" + strings.Repeat(" ---: |", 5) + "\n")
	for _, s := range f.Starts {
		fmt.Fprintf(b, "| %s | %s | %.2f | %.2f | %.2f | %.3f |\n", s.Name, mib(s.Size), median(s.Runs), percentile(s.Runs, 0), percentile(s.Runs, 100), s.all())
	}
	mine, ok := f.start(startNametag)
	if !ok {
		return
	}
	b.WriteString("\nThe packages of nametag that take the longest to initialise, medians of as many starts with `GODEBUG=inittrace=1`, beside the\nsame in the program that imports net/http:\n\n")
	b.WriteString("| package | ms | of all | bytes | ms there |\n| --- | ---: | ---: | ---: | ---: |\n")
	theirs, _ := f.start(startHTTP)
	for i, p := range mine.Init {
		if i == mostInits {
			break
		}
		there := "–"
		if at := slices.IndexFunc(theirs.Init, func(o initFigures) bool { return o.Package == p.Package }); at >= 0 {
			there = fmt.Sprintf("%.3f", theirs.Init[at].Clock)
		}
		fmt.Fprintf(b, "| %s | %.3f | %.0f %% | %d | %s |\n", p.Package, p.Clock, 100*p.Clock/mine.all(), p.Bytes, there)
	}
}
