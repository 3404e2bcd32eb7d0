//go:build linux

package apply

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
	"github.com/nametag-boot/nametag/internal/node/remedy"
	"github.com/nametag-boot/nametag/internal/node/systemd"
	"github.com/nametag-boot/nametag/internal/node/wait"
)

// A Line is one thing that happened: a sentence, and its parts for programs.
type Line struct {
	Level kmsg.Level
	Text  string
	// Event is what happened, in one word; the rest is empty where it does not apply.
	Event, Hostname, InstanceID, Path, Then string
	Err                                     error
}

// A Reporter is told what happens. Its methods may be called from several goroutines.
type Reporter interface {
	Say(Line)
	// Status is told what is being waited for, again and again.
	Status(text string)
}

// Service reports on the kernel's console, in the journal and to systemd.
type Service struct{ Console *kmsg.Console }

// Say writes the line to the console, and with its fields to the journal.
func (s Service) Say(l Line) {
	s.Console.Say(l.Level, l.Text)
	fields := map[string]string{
		systemd.FieldEvent: l.Event, systemd.FieldHostname: l.Hostname, systemd.FieldInstanceID: l.InstanceID,
		systemd.FieldPath: l.Path, systemd.FieldThen: l.Then,
	}
	if l.Err != nil {
		fields[systemd.FieldError] = l.Err.Error()
	}
	systemd.Entry(systemd.Level(l.Level), l.Text, fields)
	systemd.Status(l.Text)
}

// Status tells systemd.
func (s Service) Status(text string) { systemd.Status(text) }

// Shell reports to a person.
type Shell struct{ W io.Writer }

// Say writes the line.
func (s Shell) Say(l Line) { fmt.Fprintf(s.W, "nametag: %s\n", l.Text) }

// Status is too much for a person.
func (s Shell) Status(string) {}

// tell reports an event, if it changes what an operator should know.
func (c Config) tell(e identity.Event) {
	l := Line{Text: e.Sentence() + remedy.Of(e.Err).See(), Event: e.Kind.String(), Path: e.Path.String(), Err: e.Err}
	if e.Link != nil {
		l.Event = e.Link.Kind.String()
	}
	switch level := e.Level(); {
	case level >= slog.LevelWarn:
		l.Level = kmsg.Warning
	case level >= slog.LevelInfo:
		l.Level = kmsg.Notice
	default:
		return
	}
	c.Reporter.Say(l)
}

// How often the waiting is told: to the service manager, and to everybody.
const (
	statusEach = 5 * time.Second
	lineEach   = 30 * time.Second
)

// keepTelling says from time to time that there is no name yet, and what comes when the
// time is up.
func (c Config) keepTelling(ctx context.Context, began time.Time) {
	policy := c.Line.Policy
	for said := began; wait.Sleep(ctx, statusEach); {
		text := fmt.Sprintf("no name yet after %s; waiting for ever, as the command line says", time.Since(began).Round(time.Second))
		if end, bounded := ctx.Deadline(); bounded {
			text = fmt.Sprintf("no name yet after %s; %s in %s", time.Since(began).Round(time.Second), policy.Then, max(0, time.Until(end)).Round(time.Second))
		}
		c.Reporter.Status(text)
		if time.Since(said) >= lineEach {
			said = time.Now()
			c.Reporter.Say(Line{Level: kmsg.Notice, Event: "waiting", Text: text})
		}
	}
}
