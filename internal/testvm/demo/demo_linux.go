package demo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/lab"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// The server that the demo boots.
const (
	demoHostname   = "example-controlplane-3d3d26d1-69c5k"
	demoInstanceID = "4711"
	demoLate       = 3 * time.Second        // how late its metadata service is
	demoRTT        = 500 * time.Microsecond // as between a server and its hypervisor
	demoBound      = time.Minute            // no boot of the demo takes longer
)

// Run shows both boots and judges them: it is an error if the service of the second did not start under the server's name.
func Run(out *os.File) error {
	if err := netns.Enter(); err != nil {
		return err
	}
	c, err := cloud.New(cloud.Config{
		Server:   cloud.Server{Hostname: demoHostname, InstanceID: demoInstanceID},
		Link:     cloud.Link{RTT: demoRTT},
		Metadata: []cloud.Phase{{Until: demoLate, Answer: cloud.Unreachable()}},
	})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it has no capture that could be incomplete

	s := newScreen(out)
	s.printf("A Hetzner server named %s boots twice.\nIts metadata service is unreachable for the first %s.\n",
		s.bold(demoHostname), demoLate)
	if s.err != nil {
		return s.err
	}

	without, err := demoBoot(c, s, bootWithout, "without nametag, as Talos v1.9.1 boots")
	if err != nil {
		return err
	}
	with, err := demoBoot(c, s, bootWith, "with nametag")
	if err != nil {
		return err
	}
	s.printf("\ndemo: without nametag the service started as %s; with nametag as %s after %.1fs\n",
		without.service, with.service, with.at.Seconds())
	if with.service != demoHostname {
		return fmt.Errorf("the service started as %q, not as %q", with.service, demoHostname)
	}
	return s.err
}

// outcome is what came of a boot.
type outcome struct {
	service string        // the name that the service started under
	at      time.Duration // when it started
}

// demoBoot boots a fresh node on the cloud and shows what it reports.
func demoBoot(c *cloud.Cloud, s *screen, kind, title string) (result outcome, err error) {
	node, err := lab.Plug(c, netns.Options{Hostname: "(none)"}, cloud.NIC{Name: "eth0"})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()

	s.printf("\n%s\n", s.bold(title))
	cmd := exec.Command("/proc/self/exe", BootCommand, kind) //nolint:noctx // bounded by itself, see demoBound
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	reports, err := cmd.StdoutPipe()
	if err != nil {
		return result, err
	}
	c.Restart()
	if err := node.Start(cmd); err != nil {
		return result, err
	}
	s.begin()
	for scanner := bufio.NewScanner(reports); scanner.Scan(); {
		var r bootReport
		if err := json.Unmarshal(scanner.Bytes(), &r); err != nil {
			complaint.Write(scanner.Bytes())
			continue
		}
		if r.Started != "" {
			result = outcome{r.Started, r.At}
		}
		s.show(r)
	}
	s.end()
	if err := cmd.Wait(); err != nil {
		return result, fmt.Errorf("the boot %s: %w: %s", title, err, strings.TrimSpace(complaint.String()))
	}
	if result.service == "" {
		return result, fmt.Errorf("the boot %s: its service never started", title)
	}
	return result, nil
}

// screen draws the timeline, with a running clock where it is a terminal.
type screen struct {
	w     io.Writer
	fancy bool
	err   error // the first of printing: what could not be shown was not

	reports chan bootReport
	done    chan struct{}
}

func newScreen(out *os.File) *screen {
	return &screen{w: out, fancy: term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == ""}
}

func (s *screen) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(s.w, format, args...); err != nil && s.err == nil {
		s.err = fmt.Errorf("printing: %w", err)
	}
}

// paint puts text in a colour of the terminal (an SGR code), where there is one.
func (s *screen) paint(code, text string) string {
	if !s.fancy {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) bold(text string) string { return s.paint("1", text) }

// begin starts the clock of a boot.
func (s *screen) begin() {
	s.reports, s.done = make(chan bootReport), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(s.done)
		var tick <-chan time.Time
		if s.fancy {
			t := time.NewTicker(100 * time.Millisecond)
			defer t.Stop()
			tick = t.C
		}
		for {
			select {
			case <-tick:
				s.printf("\r\x1b[K  %s", s.paint("2", fmt.Sprintf("%6.2fs  …", time.Since(began).Seconds())))
			case r, more := <-s.reports:
				if s.fancy {
					s.printf("\r\x1b[K")
				}
				if !more {
					return
				}
				s.line(r)
			}
		}
	}()
}

func (s *screen) show(r bootReport) { s.reports <- r }

func (s *screen) end() {
	close(s.reports)
	<-s.done
}

// line is one line of the timeline: when, who, what.
func (s *screen) line(r bootReport) {
	mark, text := " ", r.Text
	switch {
	case r.Started == demoHostname:
		mark, text = s.paint("32;1", "✓"), s.paint("32;1", text)
	case r.Started != "":
		mark, text = s.paint("31;1", "✗"), s.paint("31;1", text)
	case r.Bad:
		mark, text = s.paint("31;1", "✗"), s.paint("31", text)
	}
	s.printf("  %6.2fs  %-9s %s %s\n", r.At.Seconds(), r.Who, mark, text)
}
