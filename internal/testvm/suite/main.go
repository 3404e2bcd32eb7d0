//go:build linux

// Command suite runs the tiers of tests, whatever comes of them, and says at the end what came of all. They run one after
// the other, but for those that leave the machine room for a second one.
//
//	go run ./internal/testvm/suite            # every tier of make test
//	go run ./internal/testvm/suite unit vm    # these
//	go run ./internal/testvm/suite -busy      # beside twice as many CPU-bound processes as there are processors
//
// A line is printed as each tier begins and ends, and one as each package ends. The output of a test is shown where it
// failed or was skipped. The exit status is 1 if anything failed.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, out io.Writer) int {
	flags := flag.NewFlagSet("suite", flag.ContinueOnError)
	flags.SetOutput(out)
	busy := flags.Bool("busy", false, "keep the processors busy with twice as many processes as there are")
	times := flags.Int("times", 1, "run all of it so many times")
	flags.Usage = func() {
		fmt.Fprintln(out, "usage: suite [flags] [tier …]")
		flags.PrintDefaults()
		for _, t := range tiers {
			fmt.Fprintf(out, "  %-8s %s\n", t.name, t.about)
		}
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	chosen, err := choose(flags.Args())
	if err != nil {
		fmt.Fprintln(out, "suite:", err)
		return 2
	}
	if *busy {
		quiet, err := burn(ctx, 2*runtime.NumCPU())
		if err != nil {
			fmt.Fprintln(out, "suite:", err)
			return 1
		}
		defer quiet()
		fmt.Fprintf(out, "suite: %d processes keep %d processors busy\n", 2*runtime.NumCPU(), runtime.NumCPU())
	}

	began := time.Now()
	var all tally
	var told []string
	out = &lines{w: out}
	for range *times {
		for at := 0; at < len(chosen); {
			n := together(chosen[at:])
			for _, r := range runTogether(ctx, chosen, at, n, *busy, out) {
				told = append(told, r.line)
				all.add(r.tally)
			}
			if at += n; ctx.Err() != nil {
				fmt.Fprintln(out, "suite: interrupted")
				return 1
			}
		}
	}
	fmt.Fprintf(out, "\n%s\n", strings.Join(told, "\n"))
	for _, s := range all.skips {
		fmt.Fprintln(out, "skipped:", s)
	}
	for _, f := range all.fails {
		fmt.Fprintln(out, "FAILED:", f)
	}
	fmt.Fprintf(out, "== all after %s\n", time.Since(began).Round(time.Second))
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", all.passed, len(all.fails), len(all.skips))
	if len(all.fails) > 0 {
		return 1
	}
	return 0
}

// lines is a writer for several tiers at once: each hands it whole lines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// together is how many of the tiers run beside one another, the first of them counted.
func together(all []tier) int {
	n := 1
	for n < len(all) && all[n].beside {
		n++
	}
	return n
}

// ended is what a tier came to.
type ended struct {
	tally
	line string
}

// runTogether runs n tiers, from that one on, beside one another.
func runTogether(ctx context.Context, chosen []tier, at, n int, busy bool, out io.Writer) []ended {
	results := make([]ended, n)
	var all sync.WaitGroup
	for i, t := range chosen[at : at+n] {
		fmt.Fprintf(out, "== %s begins (%d of %d): %s\n", t.name, at+i+1, len(chosen), t.about)
		all.Go(func() {
			start := time.Now()
			r := t.run(ctx, busy, out)
			results[i] = ended{r, fmt.Sprintf("== %s %s after %s", t.name, r.verdict(), time.Since(start).Round(time.Second))}
			fmt.Fprintln(out, results[i].line)
		})
	}
	all.Wait()
	return results
}

func choose(names []string) ([]tier, error) {
	if len(names) == 0 {
		return tiers, nil
	}
	var chosen []tier
	for _, name := range names {
		i := slices.IndexFunc(tiers, func(t tier) bool { return t.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no tier %q", name)
		}
		chosen = append(chosen, tiers[i])
	}
	return chosen, nil
}

// burn starts n processes that do nothing but use a processor each, until the returned function is called.
func burn(ctx context.Context, n int) (quiet func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	quiet = func() {
		cancel()
		for _, c := range started {
			_ = c.Wait()
		}
	}
	for range n {
		c := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := c.Start(); err != nil {
			quiet()
			return nil, err
		}
		started = append(started, c)
	}
	return quiet, nil
}

// A tally is what came of some tests. Fails and skips are named; failed packages without a failed test are among them.
type tally struct {
	passed       int
	fails, skips []string
}

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.fails = append(t.fails, o.fails...)
	t.skips = append(t.skips, o.skips...)
}

func (t *tally) verdict() string {
	word := "ok"
	if len(t.fails) > 0 {
		word = "FAILED"
	}
	return fmt.Sprintf("%s (%d passed, %d failed, %d skipped)", word, t.passed, len(t.fails), len(t.skips))
}

// A tier is tests that are run by one command.
type tier struct {
	name, about string
	// beside has it run beside the tier before it, whose tests leave the machine idle for minutes.
	beside bool
	// dir is the module's folder, below that of the house.
	dir string
	// commands run before the tests; one that fails is a failed test.
	before [][]string
	// packages are what go test is given; with a minus in front it is left out.
	packages []string
	flags    []string
}

func (t tier) run(ctx context.Context, busy bool, out io.Writer) tally {
	var r tally
	for _, command := range t.before {
		if err := t.command(ctx, out, command[0], command[1:]...).Run(); err != nil {
			r.fails = append(r.fails, fmt.Sprintf("%s: %s: %v", t.name, strings.Join(command, " "), err))
		} else {
			r.passed++
		}
	}
	packages, err := t.list(ctx)
	if err != nil {
		r.fails = append(r.fails, fmt.Sprintf("%s: %v", t.name, err))
		return r
	}
	reader, writer := io.Pipe()
	cmd := t.command(ctx, out, "go", slices.Concat([]string{"test", "-json"}, t.arguments(busy), packages)...)
	cmd.Stdout = writer
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Run()
		_ = writer.Close()
	}()
	o := &observer{out: out}
	if err := o.read(reader); err != nil {
		_ = reader.CloseWithError(err)
		r.fails = append(r.fails, fmt.Sprintf("%s: %v", t.name, err))
	}
	err = <-ended
	r.add(o.tally)
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || len(r.fails) == 0) {
		r.fails = append(r.fails, fmt.Sprintf("%s: go test: %v", t.name, err))
	}
	return r
}

// arguments are those of go test. Beside busy processes everything takes longer, and nothing counts that an idle machine
// or the round before has shown: without -count=1 go test would repeat it from its cache.
func (t tier) arguments(busy bool) []string {
	if !busy {
		return t.flags
	}
	return append(slices.Clone(t.flags), "-timeout", "60m", "-count=1") // of two timeouts, the last one counts
}

func (t tier) command(ctx context.Context, out io.Writer, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.dir, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// list is the packages in order: those that are named first come first.
func (t tier) list(ctx context.Context) ([]string, error) {
	var all, without []string
	for _, pattern := range t.packages {
		pattern, minus := strings.CutPrefix(pattern, "-")
		cmd := exec.CommandContext(ctx, "go", "list", pattern)
		cmd.Dir = t.dir
		var complaint strings.Builder
		cmd.Stderr = &complaint
		names, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list %s: %w: %s", pattern, err, cmp.Or(strings.TrimSpace(complaint.String()), "it says nothing"))
		}
		if minus {
			without = append(without, strings.Fields(string(names))...)
		} else {
			all = append(all, strings.Fields(string(names))...)
		}
	}
	var packages []string
	for _, p := range all {
		if !slices.Contains(without, p) && !slices.Contains(packages, p) {
			packages = append(packages, p)
		}
	}
	if len(packages) == 0 {
		return nil, errors.New("no packages")
	}
	return packages, nil
}
