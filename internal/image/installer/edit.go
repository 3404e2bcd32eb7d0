package installer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nametag-boot/nametag/internal/image/cmdline"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/procfs"
)

// Editors put the helpers in as /init, which needs nothing of the command line: an upgrade to an image without nametag
// boots as ever. What waits is told by the argument talos.hostname.wait=…, which goes onto every command line of a UKI.
//
// An initramfs has no command line: there the argument is the machine configuration's matter.
//
// The limits are those of each file.
func Editors(helpers []helper.Binary, argument string, dropSignature bool, limits limit.Limits) map[Kind]Editor {
	e := editors{map[string]helper.Binary{}, argument, dropSignature, limits}
	for _, h := range helpers {
		e.helpers[h.Architecture] = h
	}
	return map[Kind]Editor{Initramfs: e.initramfs, UKI: e.uki}
}

type editors struct {
	helpers       map[string]helper.Binary
	argument      string
	dropSignature bool
	limits        limit.Limits
}

// with opens the helper for an architecture for as long as do runs.
func (e editors) with(architecture string, do func(*initramfs.Helper) error) error {
	b, ok := e.helpers[architecture]
	if !ok {
		return &helper.MissingError{Architecture: architecture}
	}
	f, err := os.Open(b.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := initramfs.NewHelper(f, b.Size)
	if err != nil {
		return fmt.Errorf("%s: %w", b.Path, err)
	}
	return do(h)
}

func (e editors) initramfs(ctx context.Context, in, out, architecture string) (outcome Outcome, err error) {
	from, err := os.Open(in) //nolint:gosec // our own scratch folder
	if err != nil {
		return outcome, err
	}
	defer from.Close()
	st, err := from.Stat()
	if err != nil {
		return outcome, err
	}
	to, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // our own scratch folder
	if err != nil {
		return outcome, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	err = e.with(architecture, func(h *initramfs.Helper) error {
		image, err := initramfs.Read(ctx, from, st.Size(), &limit.Budget{Limits: e.limits}, nil)
		if err != nil {
			return err
		}
		change, err := image.Add(ctx, to, h, initramfs.Options{})
		outcome.Changed = change.Changed
		return err
	})
	return outcome, err
}

func (e editors) uki(ctx context.Context, in, out, architecture string) (Outcome, error) {
	var outcome Outcome
	added, budget := false, &limit.Budget{Limits: e.limits}
	err := e.with(architecture, func(h *initramfs.Helper) error {
		result, err := uki.EditFile(ctx, in, out, uki.Edit{
			CommandLine:   e.commandLine,
			DropSignature: e.dropSignature,
			Initramfs: func(ctx context.Context, out io.Writer, in *io.SectionReader) error {
				image, err := initramfs.Read(ctx, in, in.Size(), budget, nil)
				if err != nil {
					return err
				}
				var amended written
				change, err := image.Add(ctx, io.MultiWriter(out, &amended), h, initramfs.Options{})
				if err != nil {
					return err
				}
				if !change.Changed && amended == 0 {
					_, err = io.Copy(out, io.NewSectionReader(in, 0, in.Size()))
				}
				added = added || change.Changed
				return err
			},
		})
		if signed := (*uki.SignedError)(nil); errors.As(err, &signed) {
			return fmt.Errorf("%w; with --drop-signature it is edited all the same, and boots with SecureBoot only after it is signed anew", bare(err, in))
		}
		if err != nil {
			return bare(err, in)
		}
		outcome.Changed = added || result.DroppedSignatures > 0 ||
			slices.ContainsFunc(result.CommandLines, func(c uki.CommandLine) bool { return c.Before != c.After })
		if result.DroppedSignatures > 0 {
			outcome.Warnings = append(outcome.Warnings, "its signature is gone: sign it anew, or SecureBoot refuses it")
		}
		if result.StalePCRSignatures > 0 {
			outcome.Warnings = append(outcome.Warnings, "its PCR signatures are for what it was before: a disk that is sealed to them opens only after they are made anew")
		}
		outcome.Warnings = append(outcome.Warnings, elsewhere(result.CommandLines)...)
		return nil
	})
	return outcome, err
}

// written counts bytes.
type written int64

func (w *written) Write(p []byte) (int, error) {
	*w += written(len(p))
	return len(p), nil
}

// commandLine amends one command line of a UKI. One that has another way of nametag's in it already is refused: the
// helper would run twice.
func (e editors) commandLine(line string) (string, error) {
	words, err := uki.Split(line)
	if err != nil {
		return "", err
	}
	for _, w := range words {
		if strings.HasPrefix(w, "rdinit=") {
			return "", fmt.Errorf("the command line has %s already, so another program than /init comes first: amend an image without it", w)
		}
	}
	return uki.Arguments{Replace: []string{e.argument}}.Apply(line)
}

// bare is an error without the name of our own copy in front of it: what it is about is named by its path in the image.
func bare(err error, file string) error {
	if inner := errors.Unwrap(err); inner != nil && err.Error() == file+": "+inner.Error() {
		return inner
	}
	return err
}

// elsewhere warns of a UKI that is not made for Hetzner Cloud. The platform is part of its command line, and that of the
// installer of a Talos release is "metal": a node that boots by it finds out nothing about itself, and nametag, rightly,
// gets out of the way at once.
func elsewhere(lines []uki.CommandLine) []string {
	for _, l := range lines {
		parsed, _ := procfs.ParseString(l.After) //nolint:errcheck // what is wrong with our own argument was said before
		if parsed.Platform == "" || parsed.Platform == cmdline.Platform {
			continue
		}
		return []string{fmt.Sprintf("its command line says talos.platform=%s: a node that boots by it is no server of Hetzner Cloud to Talos, and nametag does nothing there; "+
			"amend an installer for %s, such as factory.talos.dev/%s-installer/… of the image factory", parsed.Platform, cmdline.Platform, cmdline.Platform)}
	}
	return nil
}
