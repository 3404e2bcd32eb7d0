package installer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nametag-boot/nametag/internal/helper"
	"github.com/nametag-boot/nametag/internal/initramfs"
	"github.com/nametag-boot/nametag/internal/uki"
)

// Editors put the helpers in as /init, which needs nothing of the command line: an upgrade to an image without nametag
// boots as ever. What waits is told by the argument talos.hostname.wait=…, which goes onto every command line of a UKI.
//
// An initramfs has no command line: there the argument is the machine configuration's matter.
func Editors(helpers []helper.Binary, argument string, dropSignature bool) map[Kind]Editor {
	e := editors{map[string]helper.Binary{}, argument, dropSignature}
	for _, h := range helpers {
		e.helpers[h.Architecture] = h
	}
	return map[Kind]Editor{Initramfs: e.initramfs, UKI: e.uki}
}

type editors struct {
	helpers       map[string]helper.Binary
	argument      string
	dropSignature bool
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
		image, err := initramfs.Read(ctx, from, st.Size(), nil)
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
	added := false
	err := e.with(architecture, func(h *initramfs.Helper) error {
		result, err := uki.EditFile(ctx, in, out, uki.Edit{
			CommandLine:   e.commandLine,
			DropSignature: e.dropSignature,
			Initramfs: func(ctx context.Context, out io.Writer, in *io.SectionReader) error {
				image, err := initramfs.Read(ctx, in, in.Size(), nil)
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
			return fmt.Errorf("%w; with --drop-signature it is edited all the same, and boots with SecureBoot only after it is signed anew", err)
		}
		if err != nil {
			return err
		}
		outcome.Changed = added || result.DroppedSignatures > 0 ||
			slices.ContainsFunc(result.CommandLines, func(c uki.CommandLine) bool { return c.Before != c.After })
		if result.DroppedSignatures > 0 {
			outcome.Warnings = append(outcome.Warnings, "its signature is gone: sign it anew, or SecureBoot refuses it")
		}
		if result.StalePCRSignatures > 0 {
			outcome.Warnings = append(outcome.Warnings, "its PCR signatures are for what it was before: a disk that is sealed to them opens only after they are made anew")
		}
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
