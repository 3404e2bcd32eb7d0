//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// The files that are written.
const (
	figuresFile = "figures.json"
	tableFile   = "README.md"
	pictureFile = "comparison.svg"
)

// figures are all that was measured, as figures.json has it. Times are in milliseconds, sizes in bytes.
type figures struct {
	Machine machineFigures  `json:"machine"`
	Quick   bool            `json:"quick,omitempty"`
	Clients []clientFigures `json:"clients"`
	Starts  []startFigures  `json:"starts,omitempty"`
	// StartLoad is the load average when the starts were measured.
	StartLoad string   `json:"start_load_average,omitempty"`
	Series    []series `json:"series"`
}

type machineFigures struct {
	Date      string `json:"date"`
	Kernel    string `json:"kernel"`
	System    string `json:"system"`
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Go        string `json:"go"`
	Took      string `json:"took"`
}

type clientFigures struct {
	Name    string `json:"name"`
	Note    string `json:"note,omitempty"`
	Missing string `json:"missing,omitempty"`
	Peak    int    `json:"peak_rss,omitempty"` // of its largest process
	Size    int    `json:"size,omitempty"`     // of its own programs
	Packed  int    `json:"size_zstd,omitempty"`
}

// A series is all runs under one condition.
type series struct {
	Shape string  `json:"shape"`
	RTT   float64 `json:"rtt_ms"`
	Loss  float64 `json:"loss"`
	Load  string  `json:"load_average"` // when it began
	Rows  []row   `json:"rows"`
}

// A row is one client's runs: Name and Exit of those that found the name, in the order of the runs.
type row struct {
	Client string    `json:"client"`
	Trips  int       `json:"round_trips"`
	Name   []float64 `json:"name_ms"`
	Exit   []float64 `json:"exit_ms"`
	Failed []string  `json:"failed,omitempty"`
}

// row is a client's row, if it has one with a name in it.
func (s series) row(client string) (row, bool) {
	i := slices.IndexFunc(s.Rows, func(r row) bool { return r.Client == client && len(r.Name) > 0 })
	if i < 0 {
		return row{}, false
	}
	return s.Rows[i], true
}

// times are the times to the name of all runs, in which a run without one took for ever. There is at least one.
func (r row) times() []float64 {
	all := slices.Clone(r.Name)
	for range r.Failed {
		all = append(all, math.Inf(1))
	}
	return all
}

// with adds what was measured earlier and not anew, in the order of the plan.
func (f *figures) with(earlier *figures) error {
	plan, err := plan(false, "")
	if err != nil {
		return err
	}
	took, err := time.ParseDuration(f.Machine.Took)
	if err != nil {
		return err
	}
	before, err := time.ParseDuration(earlier.Machine.Took)
	if err != nil {
		return err
	}
	f.Machine.Took = (before + took).String()
	var all []series
	for _, c := range plan {
		if s, ok := f.series(c.shape, c.rtt, c.loss); ok {
			all = append(all, s)
		} else if s, ok := earlier.series(c.shape, c.rtt, c.loss); ok {
			all = append(all, s)
		}
	}
	f.Series = all
	return nil
}

// series is the one under a condition, if it was measured.
func (f *figures) series(shape cloud.Shape, rtt time.Duration, loss float64) (series, bool) {
	i := slices.IndexFunc(f.Series, func(s series) bool { return s.Shape == shape.String() && s.RTT == ms(rtt) && s.Loss == loss })
	if i < 0 {
		return series{}, false
	}
	return f.Series[i], true
}

// limit is what no client can beat: its round trips; zero where a round trip takes no time.
func (s series) limit(r row) float64 { return float64(r.Trips) * s.RTT }

// median is the middle, or the mean of the two in the middle. values are not empty.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// percentile is the smallest value that so many of a hundred do not exceed (nearest rank): of few values the largest.
func percentile(values []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, max(0, int(math.Ceil(p/100*float64(len(s))))-1))]
}

// ms is a time in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// load reads the figures of an earlier measurement.
func load(path string) (*figures, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := new(figures)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// write writes the figures, the table and the picture into a folder.
func write(dir string, f *figures) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	// One client a line, so that a change can be read.
	text := strings.NewReplacer(`{"client":`, "\n  {\"client\":", `{"name":`, "\n  {\"name\":", `{"shape":`, "\n {\"shape\":").Replace(string(b)) + "\n"
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, figuresFile), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, tableFile), []byte(markdown(f)), 0o644),
		os.WriteFile(filepath.Join(dir, pictureFile), []byte(picture(f)), 0o644),
	)
}

// sizes are of the programs together: as they are, and by zstd -19; nothing where zstd is not installed.
func sizes(ctx context.Context, programs []string) (plain, packed int, err error) {
	counted := make(map[string]bool) // udhcpc may be busybox by another name
	for _, p := range programs {
		path, err := find(p)
		if err == nil {
			path, err = filepath.EvalSymlinks(path)
		}
		if err != nil {
			return 0, 0, err
		}
		if counted[path] {
			continue
		}
		counted[path] = true
		info, err := os.Stat(path)
		if err != nil {
			return 0, 0, err
		}
		plain += int(info.Size())
		b, err := exec.CommandContext(ctx, "zstd", "-19", "-q", "-c", path).Output()
		switch {
		case errors.Is(err, exec.ErrNotFound):
		case err != nil:
			return 0, 0, fmt.Errorf("zstd %s: %w", path, err)
		default:
			packed += len(b)
		}
	}
	return plain, packed, nil
}

// machine describes where the figures come from.
func machine() machineFigures {
	return machineFigures{
		Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Go: runtime.Version(),
		Kernel:    "Linux " + first("/proc/sys/kernel/osrelease", ""),
		System:    strings.Trim(first("/etc/os-release", "PRETTY_NAME="), `"`),
		Processor: strings.TrimLeft(first("/proc/cpuinfo", "model name"), "\t :"),
	}
}

// load1 is the load average of the last minute.
func load1() string {
	one, _, _ := strings.Cut(first("/proc/loadavg", ""), " ")
	return one
}

// first is what follows prefix in the first line of a file that has it, or unknown.
func first(path, prefix string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}
