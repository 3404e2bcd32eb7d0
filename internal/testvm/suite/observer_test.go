//go:build linux

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// What go test -json says of a package with one test each that passes, fails, is skipped and never ends, and of one
// that does not build.
const said = `
{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"    a_test.go:1: of no interest\n"}
{"Action":"pass","Package":"a","Test":"TestGood","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestBad","Output":"    a_test.go:2: got 1, want 2\n"}
{"Action":"fail","Package":"a","Test":"TestBad","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestLame","Output":"=== RUN   TestLame\n"}
{"Action":"output","Package":"a","Test":"TestLame","Output":"    a_test.go:3: no root\n"}
{"Action":"output","Package":"a","Test":"TestLame","Output":"--- SKIP: TestLame (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestLame","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestStuck","Output":"panic: test timed out after 1s\n"}
{"Action":"fail","Package":"a","Elapsed":1.5}
{"Action":"build-output","ImportPath":"b [b.test]","Output":"b_test.go:1: undefined: x\n"}
{"Action":"build-fail","ImportPath":"b [b.test]"}
{"Action":"output","Package":"b","Output":"FAIL\tb [build failed]\n"}
{"Action":"fail","Package":"b","Elapsed":0,"FailedBuild":"b [b.test]"}
{"Action":"pass","Package":"c","Elapsed":0.5}
`

func TestObserverCountsAndShows(t *testing.T) {
	var out bytes.Buffer
	o := observer{out: &out}
	if err := o.read(strings.NewReader(said)); err != nil {
		t.Fatal(err)
	}
	if o.passed != 1 {
		t.Errorf("%d passed, want 1", o.passed)
	}
	if want := []string{"a TestLame: a_test.go:3: no root"}; !slices.Equal(o.skips, want) {
		t.Errorf("skipped %q, want %q", o.skips, want)
	}
	want := []string{"a TestBad", "a TestStuck (it did not end)", "b [b.test] does not build"}
	if !slices.Equal(o.fails, want) {
		t.Errorf("failed %q, want %q", o.fails, want)
	}
	for _, shown := range []string{"got 1, want 2", "timed out", "undefined: x", "FAIL a 1.5s", "ok   c 0.5s"} {
		if !strings.Contains(out.String(), shown) {
			t.Errorf("%q is not shown in:\n%s", shown, &out)
		}
	}
	if strings.Contains(out.String(), "of no interest") {
		t.Errorf("what a good test said is shown:\n%s", &out)
	}
}

func TestObserverRefusesWhatIsNoJSON(t *testing.T) {
	o := observer{out: new(bytes.Buffer)}
	if err := o.read(strings.NewReader("go: no such tool\n")); err == nil {
		t.Error("read")
	}
}

func TestATierThatDoesNotExistIsRefused(t *testing.T) {
	var out bytes.Buffer
	if status := run(t.Context(), []string{"no-such-tier"}, &out); status != 2 || !strings.Contains(out.String(), "no-such-tier") {
		t.Errorf("status %d: %s", status, &out)
	}
}

func TestATierThatRunsBesideAnotherStartsWithIt(t *testing.T) {
	all := []tier{{name: "a"}, {name: "b", beside: true}, {name: "c"}}
	for at, want := range []int{2, 1, 1} {
		if n := together(all[at:]); n != want {
			t.Errorf("from %s on %d run together, want %d", all[at].name, n, want)
		}
	}
}
