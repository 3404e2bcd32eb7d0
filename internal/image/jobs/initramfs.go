package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/cmdline"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/whole"
	"github.com/nametag-boot/nametag/procfs"
)

// AddToInitramfs appends nametag to an initramfs.
type AddToInitramfs struct {
	Image, Out  string // Out is empty: in place
	Helpers     Helpers
	Limits      limit.Limits
	RDInit      bool
	Path        string // of the helper, with RDInit
	Compression string // a format's name, or "auto"
}

// InitramfsResult is what became of an initramfs.
type InitramfsResult struct {
	File string `json:"file"`
	initramfs.Change
	KernelArguments []string `json:"kernel_arguments,omitempty"`
	Warnings        []string `json:"warnings,omitempty"`
	Seconds         float64  `json:"seconds"`
}

// Run does it.
func (j *AddToInitramfs) Run(ctx context.Context, c Console) (*InitramfsResult, error) {
	began := time.Now()
	options := initramfs.Options{}
	if j.RDInit {
		options.Way, options.Path = initramfs.RDInit, j.Path
	}
	if j.Compression != "auto" {
		format, err := initramfs.ParseFormat(j.Compression)
		if err != nil {
			return nil, cli.Misusedf("--compression: %w, or auto", err)
		}
		options.Format = &format
	}
	in, err := openInitramfs(ctx, j.Image, &limit.Budget{Limits: j.Limits}, c)
	if err != nil {
		return nil, err
	}
	defer in.close()
	h, done, err := j.helper(in.image)
	if err != nil {
		return nil, err
	}
	defer done()
	r := &InitramfsResult{Warnings: in.image.Warnings()}
	if maker := distribution(in.image); j.RDInit && maker != "" {
		r.Warnings = append(r.Warnings, readsInit(maker))
	}
	if err := in.replace(r, j.Image, j.Out, c, func(w io.Writer) (initramfs.Change, error) {
		return in.image.Add(ctx, w, h, options)
	}); err != nil {
		return nil, err
	}
	at := ""
	if j.RDInit {
		at = j.Path
		if a := r.Segment.Added; a != nil {
			at = a.Path
		}
	}
	r.KernelArguments = cmdline.Arguments(procfs.Default().String(), at) // without them it does nothing
	c.warn(j.Image, r.Warnings)
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// distribution names what has made an initramfs that reads init= as the program to start in the real root; "" for another.
func distribution(im *initramfs.Image) string {
	for _, d := range []struct{ file, maker string }{
		{"scripts/functions", "initramfs-tools"},
		{"init_functions", "mkinitcpio"},
		{"lib/dracut", "dracut"},
		{"usr/lib/dracut", "dracut"},
		{"etc/initrd-release", "a distribution"},
	} {
		if _, err := im.Lookup(d.file); err == nil {
			return d.maker
		}
	}
	return ""
}

// readsInit warns of the argument that goes with rdinit=.
func readsInit(maker string) string {
	return "this initramfs was made by " + maker + ", and takes init= for the program to start in the real root, where there is no /init: " +
		"leave --rdinit out, or use the package (docs/systems.md)"
}

// helper finds the one for the image's processor.
func (j *AddToInitramfs) helper(im *initramfs.Image) (*initramfs.Helper, func(), error) {
	var architectures []string
	if n, err := im.Lookup("init"); err == nil {
		switch a := initramfs.MachineName(im.Machine(n)); a {
		case helper.AMD64, helper.ARM64:
			architectures = []string{a}
		}
	}
	if j.Helpers.Path != "" { // a mismatch is told better by Add
		if st, err := os.Stat(j.Helpers.Path); err == nil && !st.IsDir() {
			architectures = nil
		}
	}
	found, closed, err := j.Helpers.find(architectures)
	if err == nil && len(found) > 1 {
		err = errors.New("the image's /init does not tell which processor it is for: name the helper with --helper FILE")
	}
	if err != nil {
		closed()
		return nil, nil, err
	}
	h, done, err := open(found[0])
	if err != nil {
		closed()
		return nil, nil, err
	}
	return h, func() { done(); closed() }, nil
}

// RemoveFromInitramfs takes away what AddToInitramfs has appended.
type RemoveFromInitramfs struct {
	Image, Out string
	Limits     limit.Limits
}

// Run does it.
func (j *RemoveFromInitramfs) Run(ctx context.Context, c Console) (*InitramfsResult, error) {
	began := time.Now()
	in, err := openInitramfs(ctx, j.Image, &limit.Budget{Limits: j.Limits}, c)
	if err != nil {
		return nil, err
	}
	defer in.close()
	r := &InitramfsResult{}
	if err := in.replace(r, j.Image, j.Out, c, func(w io.Writer) (initramfs.Change, error) { return in.image.Remove(ctx, w) }); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// replace writes the result of change over the image, or to out; what came by the standard input goes by the standard
// output, unless told otherwise. Where change says that there is nothing to do, the image stays as it is.
func (s source) replace(r *InitramfsResult, name, out string, c Console, change func(io.Writer) (initramfs.Change, error)) error {
	if out == "" {
		out = name
	}
	r.File = out
	write := func(w io.Writer) error {
		var err error
		if r.Change, err = change(w); err != nil || r.Changed {
			return err
		}
		return s.image.CopyTo(w)
	}
	if out == Stdio {
		if cli.Terminal(c.Out) {
			return cli.Misusedf("an image is not for a terminal: say where it goes, by --out FILE or > FILE")
		}
		return write(c.Out)
	}
	st, err := s.file.Stat()
	if err != nil {
		return err
	}
	to, err := os.Stat(out)
	inPlace := err == nil && os.SameFile(st, to)
	errNothing := errors.New("nothing to do")
	mode := st.Mode()
	if name == Stdio {
		mode = 0o644
	}
	err = whole.File(out, mode, func(w *os.File) error {
		if !inPlace {
			return write(w)
		}
		if r.Change, err = change(w); err == nil && !r.Changed {
			err = errNothing
		}
		// Before it is replaced: not every system renames over an open file.
		return errors.Join(err, s.file.Close())
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// Text says what was done.
func (r *InitramfsResult) Text(w io.Writer) error {
	file := cli.Line(r.File)
	switch {
	case !r.Changed:
		fmt.Fprintf(w, "%s: nametag is in it already, with this helper; nothing changed\n", file)
	case r.Segment.Added == nil:
		fmt.Fprintf(w, "%s: nametag is taken out; %d bytes, as before it was added\n", file, r.After)
	default:
		what := "/init is nametag, and what /init was is /init.next"
		if r.Segment.Added.Way == initramfs.RDInit {
			what = "nametag is at /" + r.Segment.Added.Path
		}
		verb := "added"
		if r.Replaced {
			verb = "replaced"
		}
		fmt.Fprintf(w, "%s: nametag %s: %s\n  %s of %s, compression %s, at byte %d\n", file, verb, what, cli.Size(r.Segment.Size), cli.Size(r.After), r.Segment.Format, r.Segment.Offset)
	}
	if len(r.KernelArguments) > 0 {
		fmt.Fprintf(w, "kernel arguments to add: %s\n", strings.Join(r.KernelArguments, " "))
	}
	return nil
}
