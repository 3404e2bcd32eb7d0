package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/dmi"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/testvm/unnamed"
)

// onceAsked is how long the system waits for an answer.
const onceAsked = 800 * time.Millisecond

// The two boots of the demo.
const (
	bootWithout = "without"
	bootWith    = "with"
)

// A bootReport is one thing that happened in a boot, as a JSON line on the standard output of demo-boot.
type bootReport struct {
	At      time.Duration `json:"at"`
	Who     string        `json:"who"`
	Text    string        `json:"text"`
	Started string        `json:"started,omitempty"` // the name under which the service started
	Bad     bool          `json:"bad,omitempty"`
}

// A booting is one boot of the demo, inside its node.
type booting struct {
	began time.Time
	out   io.Writer
}

func (b *booting) report(r bootReport) {
	r.At = time.Since(b.began)
	if line, err := json.Marshal(r); err == nil {
		fmt.Fprintf(b.out, "%s\n", line)
	}
}

func (b *booting) say(who, format string, args ...any) {
	b.report(bootReport{Who: who, Text: fmt.Sprintf(format, args...)})
}

// Boot is the inside of one boot of the demo, and reports to out. It sets the hostname of wherever it runs, so it runs only
// where that is still the kernel's own.
func Boot(ctx context.Context, kind string, out io.Writer) error {
	if name, err := os.Hostname(); err != nil || name != "(none)" {
		return ErrInside
	}
	ctx, cancel := context.WithTimeout(ctx, demoBound)
	defer cancel()
	b := &booting{began: time.Now(), out: out}
	switch kind {
	case bootWithout:
		return b.withoutNametag(ctx)
	case bootWith:
		return b.withNametag(ctx)
	}
	return ErrInside
}

// withoutNametag boots as Talos v1.9.1 does: it asks for the name once, before there is a network, invents one, and
// starts the service. The true name comes later.
func (b *booting) withoutNametag(ctx context.Context) error {
	if _, err := unnamed.Ask(ctx, onceAsked); err != nil {
		b.say("machined", "asks for the hostname once: %v", cause(err))
	} else {
		return errors.New("the metadata service answered over a link that is down")
	}
	invented := unnamed.Invent()
	if err := unix.Sethostname([]byte(invented)); err != nil {
		return err
	}
	b.say("machined", "sets the hostname: %s, invented", invented)
	service, err := b.startService(ctx)
	if err != nil {
		return err
	}

	network, err := earlynet.Open(ctx, earlynet.Config{
		NICs:         []string{"eth0"},
		Methods:      []earlynet.Method{earlynet.DHCP},
		Destinations: []netip.Addr{netip.MustParseAddr("169.254.169.254")},
	})
	if err != nil {
		return err
	}
	defer network.Close() //nolint:errcheck // the node goes with all that is on it
	select {
	case path, ok := <-network.Paths():
		if !ok {
			return fmt.Errorf("no network: %w", errors.Join(network.Status()...))
		}
		b.say("network", "eth0 is up, DHCP gave %s", path.Source)
	case <-ctx.Done():
		return ctx.Err()
	}

	// Talos asks again after about 0, 1, 3, 7 s.
	for wait := time.Second; ; wait *= 2 {
		name, err := unnamed.Ask(ctx, onceAsked)
		if err == nil {
			if err := unix.Sethostname([]byte(name)); err != nil {
				return err
			}
			b.say("machined", "sets the hostname: %s, from the metadata service", name)
			break
		}
		b.say("machined", "asks again: %v", cause(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.report(bootReport{Who: "service", Text: "is still " + service + ": it read the name once", Bad: true})
	return nil
}

// withNametag boots with the name first: the service starts when it is final.
func (b *booting) withNametag(ctx context.Context) error {
	last := ""
	observe := func(e identity.Event) {
		line := e.Sentence()
		if worthShowing(e) && line != last {
			b.say("nametag", "%s", line)
			last = line
		}
	}
	r := identity.Resolver{
		Source: hetzner.Source(), Link: earlynet.Config{NICs: []string{"eth0"}}, OnEvent: observe,
		Facts: &dmi.Facts{Vendor: hetzner.Vendor, Serial: demoInstanceID},
	}
	id, err := r.Resolve(ctx)
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(id.Hostname)); err != nil {
		return err
	}
	b.say("nametag", "sets the hostname: %s; the link is as it was", id.Hostname)
	_, err = b.startService(ctx)
	return err
}

// worthShowing picks the events that tell the story.
func worthShowing(e identity.Event) bool {
	switch e.Kind {
	case identity.EventTrying, identity.EventFailed, identity.EventNamed, identity.EventUndoFailed:
		return true
	case identity.EventLink:
		return e.Link != nil && (e.Link.Kind == earlynet.LinkUp || e.Link.Kind == earlynet.DHCPAck)
	}
	return false
}

// startService starts the service, a process of its own that reads the hostname once, and reports its name.
func (b *booting) startService(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", ServiceCommand)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("the service: %w", err)
	}
	name := strings.TrimSpace(string(out))
	b.report(bootReport{Who: "service", Text: "starts as " + name, Started: name})
	return name, nil
}

// cause is what the kernel said, without the layers around it.
func cause(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	}
	return err.Error()
}
