//go:build linux

package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

func TestStatistics(t *testing.T) {
	for _, c := range []struct {
		what      string
		values    []float64
		mid, last float64
	}{
		{"one value is everything", []float64{7}, 7, 7},
		{"two values have their mean in the middle", []float64{3, 1}, 2, 3},
		{"an outlier does not move the median", []float64{1, 900, 2}, 2, 900},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := median(c.values); got != c.mid {
				t.Errorf("median %v, want %v", got, c.mid)
			}
			if got := percentile(c.values, 99); got != c.last {
				t.Errorf("99th percentile %v, want %v", got, c.last)
			}
		})
	}
	t.Run("two of two hundred values are above the 99th percentile", func(t *testing.T) {
		values := make([]float64, 200)
		for i := range values {
			values[i] = float64(200 - i)
		}
		if got := percentile(values, 99); got != 198 {
			t.Errorf("%v, want 198", got)
		}
		if got := percentile(values, 0); got != 1 {
			t.Errorf("least %v, want 1", got)
		}
	})
}

// example are figures in which nametag keeps some promises and breaks others.
func example() *figures {
	return &figures{
		Machine: machineFigures{Date: "2026-01-02", Kernel: "Linux 6.1", Took: "1m0s"},
		Clients: []clientFigures{
			{Name: bareLinkLocal, Size: 5 << 20},
			{Name: bareStatic},
			{Name: nametag, Size: 11 << 20, Packed: 5 << 20, Peak: 10 << 20},
			{Name: dhclientCurl},
			{Name: "absent", Missing: "absent is not installed (Debian: none)"},
		},
		Starts: []startFigures{
			{Name: startHTTP, Size: 8 << 20, Runs: []float64{2}, Init: []initFigures{{"net/http", 0.025, 800}}},
			{Name: startNametag, Size: 11 << 20, Runs: []float64{2, 2.2, 2.4}, Init: []initFigures{{"compress/flate", 0.03, 400}, {"net/http", 0.02, 800}}},
		},
		StartLoad: "0.10",
		Series: []series{
			{Shape: "public", Load: "9.50", Rows: []row{
				{Client: bareLinkLocal, Trips: 3, Name: []float64{4}, Exit: []float64{5}},
				{Client: bareStatic, Trips: 3, Name: []float64{3.3}, Exit: []float64{4}},
				{Client: nametag, Trips: 3, Name: []float64{5, 5.5, 9}, Exit: []float64{20, 21, 22}},
				{Client: dhclientCurl, Trips: 5, Name: []float64{22}, Exit: []float64{30}},
			}},
			{Shape: "public", RTT: 5, Loss: 0.2, Load: "12.00", Rows: []row{
				{Client: nametag, Trips: 3, Name: []float64{100}, Exit: []float64{200}},
				{Client: dhclientCurl, Trips: 5, Failed: []string{"nothing after 30s"}},
				{Client: "udhcpc + wget", Trips: 5, Name: []float64{300, 200}, Exit: []float64{300, 200}, Failed: []string{"gave up"}},
				{Client: "dhcpcd + curl", Trips: 5, Name: []float64{500}, Exit: []float64{600}, Failed: []string{"gave up", "gave up"}},
			}},
		},
	}
}

func TestPromises(t *testing.T) {
	want := map[string]bool{
		"public, no round-trip time: at most 1.5 × the bare link-local prototype": true,
		"wanted: at most 1.15 × the same prototype, linked statically":            false,
		"a start: at most 1.15 × that of a program that imports net/http alone":   true,
		"and at least 5 × faster than dhclient + curl":                            false,
		"and at least 5 × faster than the best other client":                      false,
		"public, 5ms, 20 % loss each way: 99th percentile of 200 runs under 1 s":  false, // one run is not 200
		"the binary: at most 12 MiB":                                              true,
		"as zstd: at most 4 MiB":                                                  false,
		"peak resident memory: at most 24 MiB":                                    true,
	}
	got := make(map[string]bool)
	for _, p := range promises(example()) {
		got[p.what] = p.held
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestReport(t *testing.T) {
	text := markdown(example())
	for _, want := range []string{
		"| nametag | 3 | 0 | 5.5 | 5.0 | 9.0 | 9.0 | 21.0 | – | 1.67 |",
		"| nametag | 1 | 0 | 100 | 100 | 100 | 100 | 200 | 6.67 × 3 | – |",
		"| dhclient + curl | 1 | 1 | – | – | – | – | – | – | – |",
		"| udhcpc + wget | 3 | 1 | 300 | 200 | none | none | 250 | 12.00 × 5 | – |",
		"| dhcpcd + curl | 3 | 2 | none | 500 | none | none | 600 | – | – |",
		"**not measured:** absent is not installed (Debian: none)",
		"with a load average between 9.50 and 12.00",
		"| 1.38 × | held |",
		"| 1.67 ×, 2.2 ms more | **not held** |",
		"| 1.10 × | held |",
		"| nametag --version | 11.0 | 2.20 | 2.00 | 2.40 | 0.050 |",
		"| compress/flate | 0.030 | 60 % | 400 | – |",
		"| net/http | 0.020 | 40 % | 800 | 0.025 |",
		"| and at least 5 × faster than dhclient + curl | 4.0 × | **not held** |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
}

func TestPicture(t *testing.T) {
	drawing := picture(example())
	decoder := xml.NewDecoder(strings.NewReader(drawing))
	names := make(map[string]bool)
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, drawing)
		}
		if text, ok := token.(xml.CharData); ok {
			names[string(text)] = true
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range start.Attr {
			v, err := strconv.ParseFloat(a.Value, 64)
			if err == nil && (math.IsNaN(v) || math.IsInf(v, 0) || v < 0 || v > 2000) {
				t.Errorf("<%s %s=%q> is outside the picture", start.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
	for _, want := range []string{bareLinkLocal, nametag, dhclientCurl, "public, 5 ms RTT", "20 % lost each way", "5.5", "no name"} {
		if !names[want] {
			t.Errorf("the picture does not say %q", want)
		}
	}
}

func TestFiguresSurviveTheFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "down")
	f := example()
	if err := write(dir, f); err != nil {
		t.Fatal(err)
	}
	back, err := load(filepath.Join(dir, figuresFile))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f, back) {
		t.Errorf("written\n%+v\nread\n%+v", f, back)
	}
	if table, err := os.ReadFile(filepath.Join(dir, tableFile)); err != nil || string(table) != markdown(f) {
		t.Errorf("the table in the folder is another one (%v)", err)
	}
}

// The figures in the repository and what is made of them belong together.
func TestTheCommittedReportIsMadeFromTheCommittedFigures(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "docs", "bench")
	f, err := load(filepath.Join(dir, figuresFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{tableFile: markdown(f), pictureFile: picture(f)} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("docs/bench/%s is not what the figures say; make it anew: go run ./internal/testvm/bench -render", name)
		}
	}
}

func TestAConditionMeasuredAnewReplacesTheEarlierOne(t *testing.T) {
	anew := &figures{Machine: machineFigures{Took: "30s"}, Series: []series{{Shape: "public", RTT: 5, Loss: 0.2, Load: "1.00"}}}
	if err := anew.with(example()); err != nil {
		t.Fatal(err)
	}
	if anew.Machine.Took != "1m30s" {
		t.Errorf("it took %s", anew.Machine.Took)
	}
	if len(anew.Series) != 2 || anew.Series[0].Load != "9.50" || anew.Series[1].Load != "1.00" {
		t.Errorf("%+v", anew.Series)
	}
}

func TestThePlanCoversEveryNetwork(t *testing.T) {
	full, err := plan(false, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(full) != 12 {
		t.Errorf("%d conditions, want 12: %v", len(full), full)
	}
	quick, err := plan(true, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(quick) >= len(full)/2 {
		t.Errorf("the quick plan has %d conditions, no short one: %v", len(quick), quick)
	}
	if got := flagship.effort(client{name: nametag, resolves: true}).runs; got != promisedRuns {
		t.Errorf("%d runs for the promise, want %d", got, promisedRuns)
	}
	if _, err := plan(false, "no such network"); err == nil {
		t.Error("a filter that matches nothing is no error")
	}
}

// shell is a client that is a shell script.
func shell(name, script string) client {
	return client{name: name, argv: []string{"/bin/sh", "-c", script}, trips: either}
}

func TestRuns(t *testing.T) {
	netns.Require(t)
	here := condition{shape: cloud.Public}
	turn := func(t *testing.T, c client) (run, error) {
		t.Helper()
		return once(t.Context(), c, here, 1, nil)
	}
	t.Run("the time to the name ends at its line, not at the exit", func(t *testing.T) {
		r, err := turn(t, shell("prompt", "echo "+hostname+"; sleep 0.3"))
		if err != nil || r.failed != "" {
			t.Fatal(r, err)
		}
		if r.exit-r.name < 200*time.Millisecond {
			t.Errorf("name after %s, exit after %s", r.name, r.exit)
		}
	})
	t.Run("another name ends the bench", func(t *testing.T) {
		if _, err := turn(t, shell("liar", "echo my-server")); err == nil || !strings.Contains(err.Error(), `liar, public, 0s, 0 % loss: it said "my-server"`) {
			t.Error(err)
		}
	})
	t.Run("half a name ends the bench", func(t *testing.T) {
		if _, err := turn(t, shell("cut", "printf "+hostname)); err == nil {
			t.Error("a line without an end was taken for the name")
		}
	})
	t.Run("a client that gives up has failed, and says why", func(t *testing.T) {
		r, err := turn(t, shell("tired", "echo no lease >&2; exit 7"))
		if err != nil || r.failed != "gave up: exit status 7 no lease" {
			t.Errorf("%q, %v", r.failed, err)
		}
	})
	t.Run("a daemon does not outlive its run", func(t *testing.T) {
		fifo := filepath.Join(t.TempDir(), "fifo")
		nap := "60." + strconv.Itoa(os.Getpid())
		r, err := turn(t, shell("forker", "mkfifo "+fifo+"; (setsid sh -c 'echo up > "+fifo+"; exec sleep "+nap+"' >/dev/null 2>&1 &); read up < "+fifo+"; echo "+hostname))
		if err != nil || r.failed != "" {
			t.Fatal(r, err)
		}
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil || len(processes) == 0 {
			t.Fatal("no processes", err)
		}
		for _, p := range processes {
			if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), nap) {
				t.Errorf("still there: %s, %q", p, b)
			}
		}
	})
	t.Run("the node is fresh: its NIC is down, and nothing of the machine can be written by accident", func(t *testing.T) {
		r, err := turn(t, shell("curious", `
			[ -z "$(ip -br link show up dev eth0)" ] && [ -z "$(ls -A /run)" ] && echo nameserver 192.0.2.1 > /etc/resolv.conf || exit
			echo `+hostname))
		if err != nil || r.failed != "" {
			t.Errorf("%+v, %v", r, err)
		}
		if b, err := os.ReadFile("/etc/resolv.conf"); err == nil && strings.Contains(string(b), "192.0.2.1") {
			t.Error("the run has written the machine's resolv.conf")
		}
	})
	t.Run("an interrupted bench says so", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := once(ctx, shell("slow", "sleep 60"), here, 1, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("the largest process counts, wherever it is in the tree", func(t *testing.T) {
		// A grandchild, orphaned, that holds 20 MiB until the end, and says when it has them.
		fifo := filepath.Join(t.TempDir(), "fifo")
		c := shell("large", "mkfifo "+fifo+"; (sh -c 'x=$(head -c 20971520 /dev/zero | tr \"\\0\" x); echo up > "+fifo+"; exec 2>&-; sleep 60' >/dev/null 2>&1 &); read up < "+fifo+"; sleep 1; echo "+hostname)
		var peak int
		r, err := once(t.Context(), c, here, 1, func(pid int) func() { return watch(pid, &peak) })
		if err != nil || r.failed != "" {
			t.Fatal(r, err)
		}
		if peak < 15<<20 || peak > 200<<20 {
			t.Errorf("peak of %d bytes", peak)
		}
	})
}

func TestAnEarlierNametagRunsBesideThePresentOne(t *testing.T) {
	all, err := clients(t.Context(), tools{dir: t.TempDir(), nametag: "/bin/true", before: "/bin/false"}, "^nametag( before)?$")
	if err != nil || len(all) != 2 {
		t.Fatalf("%d clients, %v", len(all), err)
	}
	now, before := all[0], all[1]
	if now.argv[0] != "/bin/true" || before.argv[0] != "/bin/false" || !slices.Equal(now.argv[1:], before.argv[1:]) {
		t.Errorf("not the same of both: %q and %q", now.argv, before.argv)
	}
	if !maps.Equal(now.trips, before.trips) || now.resolves != before.resolves || now.patient != before.patient {
		t.Errorf("their turns are not alike: %+v and %+v", now, before)
	}
	t.Run("one that is not there ends the bench before anything is built", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := prepare(t.Context(), dir, "", "/nowhere/nametag"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nowhere/nametag") {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

func TestTurns(t *testing.T) {
	netns.Require(t)
	file := filepath.Join(t.TempDir(), "order")
	here := condition{shape: cloud.Public}
	say := func(name string) *turns {
		return &turns{where: here, client: shell(name, "echo "+name+" >> "+file+"; echo "+hostname), effort: effort{runs: 2, time: time.Minute}}
	}
	all := []*turns{say("a"), say("b"), say("c")}
	if err := take(t.Context(), all, 1); err != nil {
		t.Fatal(err)
	}
	order, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(string(order)), " "); got != "a b c a b c" {
		t.Errorf("the clients ran in the order %q", got)
	}
	t.Run("a slow client stops early, but not before its third run", func(t *testing.T) {
		slow := shell("slow", "echo "+hostname)
		it := &turns{where: here, client: slow, effort: effort{runs: 50, time: time.Nanosecond}}
		if err := take(t.Context(), []*turns{it}, 1); err != nil {
			t.Fatal(err)
		}
		if len(it.runs) != leastRuns {
			t.Errorf("%d runs, want %d", len(it.runs), leastRuns)
		}
	})
}

func TestStarts(t *testing.T) {
	t.Run("the runtime's trace is read", func(t *testing.T) {
		got, err := parseInits("init net/http @0.71 ms, 0.033 ms clock, 8472 bytes, 62 allocs\nv1.0.0\n")
		if want := []initFigures{{"net/http", 0.033, 8472}}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := parseInits("init net/http took long\n"); err == nil {
			t.Errorf("a line of another shape is %v", got)
		}
	})
	t.Run("a program of this Go has one", func(t *testing.T) {
		binary := filepath.Join(t.TempDir(), "nethttp")
		if err := build(t.Context(), binary, "internal/testvm/bench/start/nethttp"); err != nil {
			t.Fatal(err)
		}
		trace, err := inits(t.Context(), []string{binary})
		if err != nil || len(trace) < 10 {
			t.Errorf("%d packages, %v", len(trace), err)
		}
	})
	t.Run("the median of each package, in order of time", func(t *testing.T) {
		got := middle(map[string][]initFigures{
			"a": {{"a", 0.01, 1}, {"a", 0.02, 1}, {"a", 0.5, 1}}, "b": {{"b", 0.03, 2}}, "c": {{"c", 0.0001, 3}},
		})
		if want := []initFigures{{"b", 0.03, 2}, {"a", 0.02, 1}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%v", got)
		}
	})
	t.Run("a program that fails is an error", func(t *testing.T) {
		if took, err := start(t.Context(), []string{"/bin/false"}); err == nil {
			t.Errorf("it took %s", took)
		}
	})
}
