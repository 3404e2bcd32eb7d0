//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// An event is a line of go test -json; see go doc test2json.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string // of a package that does not build
	Elapsed                       float64
}

// An observer reads what go test -json says, shows what a person wants to see of it as it comes, and counts.
type observer struct {
	tally
	out io.Writer

	said   map[string][]string // what a test that has not ended has said, by its package and name
	failed map[string]bool     // packages with a failed test that was named
}

func (o *observer) read(from io.Reader) error {
	o.said, o.failed = map[string][]string{}, map[string]bool{}
	for d := json.NewDecoder(from); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("what go test -json says: %w", err)
		}
		o.take(e)
	}
}

func (o *observer) take(e event) {
	name := e.Package
	if e.Test != "" {
		name += " " + e.Test
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(o.out, e.Output)
	case "build-fail":
		o.fails = append(o.fails, e.ImportPath+" does not build")
	case "output":
		o.said[name] = append(o.said[name], e.Output)
	case "pass":
		if e.Test != "" {
			o.passed++
		} else {
			o.ended(e, "ok")
		}
		delete(o.said, name)
	case "skip":
		if e.Test != "" {
			o.skips = append(o.skips, name+": "+reason(o.said[name]))
		} // a package is skipped that has no tests
		delete(o.said, name)
	case "fail":
		if e.Test != "" {
			o.failed[e.Package] = true
			o.fails = append(o.fails, name)
			o.show(name)
			break
		}
		// What a test that never ended has said stands under its own name: a panic, or the time that ran out.
		for said := range o.said {
			if strings.HasPrefix(said, e.Package+" ") {
				o.show(said)
				o.failed[e.Package] = true
				o.fails = append(o.fails, said+" (it did not end)")
			}
		}
		if !o.failed[e.Package] && e.FailedBuild == "" {
			o.fails = append(o.fails, e.Package)
		}
		o.show(name)
		o.ended(e, "FAIL")
	}
}

func (o *observer) ended(e event, verdict string) {
	fmt.Fprintf(o.out, "%-4s %s %.1fs\n", verdict, e.Package, e.Elapsed)
}

// show prints what a test has said, without the frame that go test puts around it.
func (o *observer) show(name string) {
	for _, line := range o.said[name] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(o.out, line)
		}
	}
	delete(o.said, name)
}

// reason is why a test was skipped, in its own words.
func reason(said []string) string {
	var words []string
	for _, line := range said {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}
