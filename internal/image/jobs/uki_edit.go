package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/cmdline"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/procfs"
)

// EditUKI writes a unified kernel image again.
type EditUKI struct {
	Image, Out              string // Out is empty: in place
	Append, Replace, Remove []string
	CommandLine             *string // of an image that has none
	Wait                    string
	Initrd                  string // a file in the place of the initramfs
	Nametag, RDInit         bool
	Helpers                 Helpers
	DropSignature           bool
	Limits                  limit.Limits
}

// UKIResult is what became of it.
type UKIResult struct {
	File string `json:"file"`
	*uki.Result
	Changed  bool     `json:"changed"`
	Warnings []string `json:"warnings,omitempty"` // what will keep nametag from doing what was meant
}

// Run does it.
func (j *EditUKI) Run(ctx context.Context, c Console) (*UKIResult, error) {
	arguments, err := j.arguments()
	if err != nil {
		return nil, cli.Misused(err)
	}
	edit := uki.Edit{DropSignature: j.DropSignature, CommandLine: j.commandLine(arguments)}
	m, image, err := uki.OpenFile(j.Image)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	if edit.CommandLine != nil {
		if err := j.owns(m); err != nil {
			return nil, err
		}
	}
	if j.Initrd != "" || j.Nametag {
		editor, done, err := j.editor(ctx, m, c)
		if err != nil {
			return nil, err
		}
		defer done()
		edit.Initramfs = editor
	}
	_ = image.Close() // before it is replaced, should it be: not every system renames over an open file
	out := cmp.Or(j.Out, j.Image)
	result, err := uki.EditFile(ctx, j.Image, out, edit)
	var signed *uki.SignedError
	if errors.As(err, &signed) {
		return nil, fmt.Errorf("%w; no file was changed. --drop-signature writes the image without it, to be signed by you then: %s", err, signNext("OUT"))
	}
	if err != nil {
		return nil, err
	}
	return &UKIResult{out, result, result.Changed(), j.warnings(ctx, c, out, result)}, nil
}

// signNext is how an image is signed.
func signNext(name string) string {
	return fmt.Sprintf("sbsign --key db.key --cert db.crt --output %[1]s %[1]s", name)
}

// leadsToInit refuses a command line by which the kernel runs another program than /init. Where nametag was added by
// --rdinit before, the program is not even there any more, and the kernel panics.
func leadsToInit(line string) error {
	words, err := uki.Split(line)
	if err != nil {
		return err
	}
	for _, word := range words {
		if word == "--" {
			break
		}
		if strings.HasPrefix(word, "rdinit=") && word != "rdinit=/init" {
			return fmt.Errorf("it has %s, by which the kernel does not run /init, where nametag is to be: take it away by --remove rdinit, or keep it and give --rdinit", word)
		}
	}
	return nil
}

// warnings is what nametagctl cmdline check has to say about the command lines, where they are to be nametag's, and the
// initramfs that they are for. One that cannot be read is checked by whoever edits it, and not here.
func (j *EditUKI) warnings(ctx context.Context, c Console, name string, r *uki.Result) (warnings []string) {
	if !j.Nametag && j.Wait == "" {
		return nil
	}
	var o cmdline.Options
	if image, done, err := checkedImage(ctx, name, &limit.Budget{Limits: j.Limits}, c); err == nil {
		defer done()
		o.Image = image
	}
	for _, l := range r.CommandLines {
		for _, found := range cmdline.Check(l.After, o) {
			warnings = append(warnings, "command line of "+l.Profile+": "+sentence(found))
		}
	}
	return warnings
}

// arguments is what the options say about the command lines.
func (j *EditUKI) arguments() (a uki.Arguments, err error) {
	switch {
	case j.Initrd != "" && j.Nametag:
		return a, errors.New("choose --initrd, another initramfs, or --nametag, which adds to the one that is there")
	case !j.Nametag && (j.Helpers.given() || j.RDInit):
		return a, errors.New("--helper and --rdinit belong to --nametag")
	}
	for _, list := range []struct {
		flag string
		from []string
		to   *[]string
	}{{"append", j.Append, &a.Append}, {"replace", j.Replace, &a.Replace}, {"remove", j.Remove, &a.Remove}} {
		for _, text := range list.from {
			words, err := uki.Split(text)
			if err != nil {
				return a, fmt.Errorf("--%s: %w", list.flag, err)
			}
			if err := uki.CheckWords(words); err != nil {
				return a, fmt.Errorf("--%s: %w", list.flag, err)
			}
			*list.to = append(*list.to, words...)
		}
	}
	if j.Wait != "" {
		policy, err := procfs.ParsePolicy(j.Wait)
		if err != nil {
			return a, fmt.Errorf("--wait: %w", err)
		}
		a.Replace = append(a.Replace, policy.String())
	}
	if j.RDInit {
		a.Replace = append(a.Replace, "rdinit=/"+initramfs.DefaultPath, "init=/init")
	}
	if len(a.Append)+len(a.Replace)+len(a.Remove) == 0 && j.Initrd == "" && !j.Nametag && !j.DropSignature && j.CommandLine == nil {
		return a, errors.New("nothing to do: --nametag --wait 2m is the usual; '--help' lists the rest")
	}
	return a, nil
}

// waits is a line that has talos.hostname.wait=, by default the default: without it nametag does nothing.
func waits(line string) (string, error) {
	words, err := uki.Split(line)
	if err != nil || slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "talos.hostname.wait") }) {
		return line, err
	}
	return uki.Arguments{Append: []string{procfs.Default().String()}}.Apply(line)
}

// commandLine is what is to be done to every command line; nil: nothing.
func (j *EditUKI) commandLine(a uki.Arguments) func(string) (string, error) {
	if len(a.Append)+len(a.Replace)+len(a.Remove) == 0 && !j.Nametag && j.CommandLine == nil {
		return nil
	}
	return func(line string) (string, error) {
		if line == "" && j.CommandLine != nil {
			line = *j.CommandLine
		}
		line, err := a.Apply(line)
		if err != nil || !j.Nametag {
			return line, err
		}
		if line, err = waits(line); err != nil {
			return line, err
		}
		if !j.RDInit {
			err = leadsToInit(line)
		}
		return line, err
	}
}

// owns says whether a command line that is added by an edit would be one that somebody means. An image without one takes
// the loader's; one with it does not, where Secure Boot is on, and so a line of our argument alone would be the whole.
func (j *EditUKI) owns(m *uki.Image) error {
	switch has := len(m.Find(".cmdline")) > 0; {
	case has && j.CommandLine != nil:
		return cli.Misusedf("--cmdline is for an image without a command line of its own, and this has one: see --append, --replace and --remove")
	case !has && j.CommandLine == nil:
		return cli.Misusedf("the image has no command line of its own (.cmdline): its loader gives it one. Put the arguments there, " +
			"or give the image a whole one by --cmdline 'ARGUMENTS', which takes the place of the loader's where Secure Boot is on")
	}
	return nil
}

// editor is what the flags say about the initramfs. done closes what it needs.
func (j *EditUKI) editor(ctx context.Context, m *uki.Image, c Console) (editor uki.InitramfsEditor, done func(), err error) {
	if j.Initrd != "" {
		if n := len(m.Find(".initrd")); n > 1 {
			return nil, nil, fmt.Errorf("the image has %d initramfs, each for profiles of its own, and --initrd would make them one", n)
		}
		in, err := openOther(ctx, j.Initrd, m.Machine, &limit.Budget{Limits: j.Limits}, c)
		if err != nil {
			return nil, nil, err
		}
		return func(_ context.Context, out io.Writer, _ *io.SectionReader) error {
			_, err := io.Copy(out, in)
			return err
		}, func() { _ = in.Close() }, nil
	}
	if len(m.Find(".initrd")) == 0 {
		return nil, nil, errors.New("the image has no initramfs that --nametag could add to: put one in with --initrd")
	}
	found, closed, err := j.Helpers.find([]string{m.Machine.String()})
	if err != nil {
		return nil, nil, err
	}
	h, closeHelper, err := open(found[0])
	if err != nil {
		closed()
		return nil, nil, err
	}
	options, budget := initramfs.Options{}, &limit.Budget{Limits: j.Limits}
	if j.RDInit {
		options.Way = initramfs.RDInit
	}
	return func(ctx context.Context, out io.Writer, in *io.SectionReader) error {
		image, err := readInitramfs(ctx, in, in.Size(), "the initramfs", budget, c)
		if err != nil {
			return err
		}
		if maker := distribution(image); j.RDInit && maker != "" {
			c.warn("the initramfs", []string{readsInit(maker)})
		}
		change, err := image.Add(ctx, out, h, options)
		if err != nil || change.Changed {
			return err
		}
		return image.CopyTo(out) // it was in already
	}, func() { closeHelper(); closed() }, nil
}

// openOther opens the initramfs that is to go into an image for that processor. What is none, or has no /init for the
// processor, makes an image that panics.
func openOther(ctx context.Context, name string, machine uki.Machine, budget *limit.Budget, c Console) (*os.File, error) {
	in, err := openInitramfs(ctx, name, budget, c)
	if err == nil {
		err = fits(in.image, machine)
		if err == nil {
			_, err = in.file.Seek(0, io.SeekStart)
		}
		if err == nil {
			return in.file, nil
		}
		in.close()
	}
	return nil, fmt.Errorf("--initrd %s: %w", name, err)
}

// fits says whether an initramfs is for a processor.
func fits(image *initramfs.Image, machine uki.Machine) error {
	n, err := image.Lookup("init")
	if err != nil {
		return errors.New("it has no /init")
	}
	if its := image.Machine(n); its != 0 && initramfs.MachineName(its) != machine.String() {
		return fmt.Errorf("its /init is for %s, and the image for %s", initramfs.MachineName(its), machine)
	}
	return nil
}

// Text says what was done.
func (r *UKIResult) Text(w io.Writer) error {
	name := cli.Line(r.File)
	if !r.Changed {
		fmt.Fprintf(w, "%s: it was as asked already\n", name)
		r.warn(w)
		return nil
	}
	fmt.Fprintf(w, "%s: %s\n", name, cli.Size(r.Size))
	for _, c := range r.CommandLines {
		verb := "command line of"
		if c.Before == c.After {
			verb = "command line, as it was, of"
		}
		fmt.Fprintf(w, "  %s %s:\n    %s\n", verb, cli.Line(c.Profile), cli.Line(c.After))
	}
	for _, i := range r.Initramfs {
		fmt.Fprintf(w, "  initramfs of %s: %s, before %s\n", cli.Line(i.Profile), cli.Size(i.After), cli.Size(i.Before))
	}
	if r.DroppedSignatures > 0 {
		fmt.Fprintf(w, "The image is not signed any more. Where Secure Boot is on, sign it next, by a key that the firmware trusts:\n  %s\n", signNext(name))
	}
	if r.StalePCRSignatures > 0 {
		fmt.Fprintf(w, "Its PCR signatures (.pcrsig: %d) are over what was changed, and do not match any more. A disk that is sealed to them by\n"+
			"the TPM does not open. Where that is used, let Talos' imager make and sign the image, from 'nametagctl extension'.\n", r.StalePCRSignatures)
	}
	r.warn(w)
	return nil
}

func (r *UKIResult) warn(w io.Writer) {
	for _, text := range r.Warnings {
		fmt.Fprintln(w, cli.Line(text))
	}
}
