// Command mutants breaks the code on purpose, one place at a time, and says whether the tests notice.
//
//	go run ./internal/testvm/mutants            # all of them
//	go run ./internal/testvm/mutants NAME …     # these
//
// The checkout stays as it is: the broken file is laid over it for one run of go test (-overlay). A mutant whose tests pass
// has survived; that is a hole in the tests, and the exit status is 1. So it is where a mutant no longer fits the code.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/overlay"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, mutants, os.Args[1:], os.Stdout)
	stop()
	os.Exit(status)
}

// A mutant is one change for the worse.
type mutant struct {
	name string
	file string // from the top of the checkout
	old  string // stands in the file once
	new  string
	// test is the arguments of go test that has to fail. The change is in the tests' own program alone, and not in a helper
	// that they build: what boots that one in a virtual machine cannot fail by it.
	test []string
}

func run(ctx context.Context, all []mutant, names []string, out io.Writer) int {
	status, caught, tried := 0, 0, 0
	for _, name := range names {
		if !slices.ContainsFunc(all, func(m mutant) bool { return m.name == name }) {
			fmt.Fprintf(out, "mutants: there is no %q\n", name)
			return 2
		}
	}
	for _, m := range all {
		if len(names) > 0 && !slices.Contains(names, m.name) {
			continue
		}
		tried++
		began := time.Now()
		verdict := "caught"
		if err := m.try(ctx); err != nil {
			verdict, status = err.Error(), 1
		} else {
			caught++
		}
		fmt.Fprintf(out, "%-45s %s (%s)\n", m.name, verdict, time.Since(began).Round(time.Second))
	}
	fmt.Fprintf(out, "%d of %d caught\n", caught, tried)
	return status
}

var errSurvived = errors.New("SURVIVED: no test fails")

// try is nil if the tests fail with the mutant in the code.
func (m mutant) try(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	list, err := overlay.Change(dir, m.file, m.old, m.new)
	if err != nil {
		return err
	}
	// What does not build is caught by nobody's test.
	packages := m.test[len(m.test)-1]
	if said, err := exec.CommandContext(ctx, "go", "vet", "-overlay", list, packages).CombinedOutput(); err != nil {
		return fmt.Errorf("does not build: %w\n%s", err, said)
	}
	said, err := exec.CommandContext(ctx, "go", append([]string{"test", "-overlay", list, "-count=1", "-failfast"}, m.test...)...).CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return errSurvived
	case !strings.Contains(string(said), "--- FAIL"):
		return fmt.Errorf("go test failed otherwise: %w\n%s", err, said)
	}
	return nil
}
