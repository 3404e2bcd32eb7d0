//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/lasting"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/record"
)

const statusUsage = `nametag status says which name nametag gave this system, how it was found, and whether it is still in effect.

Usage:
  nametag status [flags]

Flags:
  --json      for programs
  --run DIR   where the record is; default /run
  --root DIR  the system; default /

Exit status:
  0  nametag named this system in this boot, and the name is in effect
  1  another failure, as printed
  2  bad usage
  7  nametag has not named this system in this boot
  8  another name is in effect than the one that nametag gave, and it is not an operator's
  9  an operator's name is in effect, by /etc/hostname (nametag pin makes one of nametag's such): nametag leaves it alone

Example:
  nametag status || journalctl -b -u nametag
`

// A situation is what `nametag status` finds.
type situation struct {
	Hostname string        `json:"hostname"`         // the kernel's
	Static   string        `json:"static,omitempty"` // in /etc/hostname
	Pinned   bool          `json:"pinned"`           // an operator's, or kept by `nametag pin`
	InEffect bool          `json:"in_effect"`
	Since    time.Time     `json:"since,omitzero"`
	Record   record.Record `json:"record,omitzero"`
}

// A statusError is an exit status of its own.
type statusError struct {
	code int
	text string // empty: it has been said
}

func (e *statusError) Error() string { return e.text }

// runStatus is `nametag status`.
func runStatus(args []string, stdout io.Writer) error {
	set := flag.NewFlagSet("status", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	asJSON := set.Bool("json", false, "")
	run := set.String("run", lasting.Run, "")
	root := set.String("root", "/", "")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, statusUsage)
		return nil
	case err != nil:
		return &usageError{err}
	case set.NArg() > 0:
		return &usageError{fmt.Errorf("status takes flags only, not %q", set.Arg(0))}
	}
	s, problem := look(*run, lasting.Root(*root))
	var own *statusError
	if problem != nil && !errors.As(problem, &own) {
		return problem
	}
	var err error
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(s)
	} else if s.Record.Hostname != "" {
		err = s.print(stdout)
	}
	if err != nil {
		return err
	}
	return problem
}

// look finds out how things stand. A *statusError goes with a whole situation.
func look(run string, root lasting.Root) (situation, error) {
	var s situation
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return s, os.NewSyscallError("uname", err)
	}
	s.Hostname = unix.ByteSliceToString(u.Nodename[:])
	var err error
	if s.Static, err = root.Static(); err != nil {
		return s, err
	}
	operator, err := root.Operator()
	if err != nil {
		return s, err
	}
	s.Pinned = operator != ""
	path := filepath.Join(run, "nametag/identity.json")
	r, err := record.Read(path)
	// It may have come after nametag's: Ignition writes it at the end of the initramfs, hostnamectl at any time.
	byOperator := &statusError{exitOperator, fmt.Sprintf("the name in effect, %s, is an operator's, by /etc/hostname", s.Hostname)}
	there := err == nil && r.BootID == thisBoot()
	switch {
	case !there && s.Pinned && s.Hostname == operator:
		return s, byOperator
	case errors.Is(err, fs.ErrNotExist):
		return s, &statusError{exitUnnamed, "nametag has not named this system: there is no " + path}
	case err != nil:
		return s, err
	case !there:
		return s, &statusError{exitUnnamed, fmt.Sprintf("nametag has not named this system in this boot: %s is of another one", path)}
	}
	s.Record = r
	if st, err := os.Stat(path); err == nil {
		s.Since = st.ModTime().UTC()
	}
	s.InEffect = s.Hostname == r.Hostname || len(r.Hostname) > kernelLimit && s.Hostname == r.ShortName
	switch {
	case s.InEffect:
	case s.Hostname == operator:
		return s, byOperator
	default:
		return s, &statusError{exitRenamed, fmt.Sprintf("the name in effect is %s, nametag gave %s", s.Hostname, r.Hostname)}
	}
	return s, nil
}

// kernelLimit is the longest name that the kernel takes (__NEW_UTS_LEN).
const kernelLimit = 64

func thisBoot() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// print says it to a person.
func (s situation) print(w io.Writer) error {
	r := s.Record
	rows := [][2]string{{"", r.Hostname}}
	row := func(name, format string, args ...any) {
		rows = append(rows, [2]string{name, fmt.Sprintf(format, args...)})
	}
	if !s.InEffect {
		row("in effect", "%s", s.Hostname)
	}
	row("instance", "%s", r.InstanceID)
	if r.AvailabilityZone != "" {
		row("zone", "%s", r.AvailabilityZone)
	}
	switch {
	case r.Source != memory.Source:
		row("found", "by %s, in %.0f ms", r.Path, r.ElapsedMS)
	case r.KnownSince.IsZero():
		row("found", "remembered from an earlier boot; the metadata service gave none")
	default:
		row("found", "remembered from an earlier boot, since %s; the metadata service gave none", r.KnownSince.UTC().Format(time.RFC3339))
	}
	row("since", "%s", s.Since.Format(time.RFC3339))
	switch {
	case s.Static == "":
		row("kept", "for this boot")
	case s.Pinned:
		row("kept", "in /etc/hostname, pinned: %s", s.Static)
	default:
		row("kept", "in /etc/hostname")
	}
	var b strings.Builder
	for _, r := range rows {
		if r[0] == "" {
			fmt.Fprintln(&b, r[1])
			continue
		}
		fmt.Fprintf(&b, "  %-10s %s\n", r[0], r[1])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
