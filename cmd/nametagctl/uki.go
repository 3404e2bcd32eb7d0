package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/image/cmdline"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/procfs"
)

const ukiLong = `Show a unified kernel image, or write it again with another command line and with nametag in its initramfs.

A unified kernel image (UKI) is an EFI program that holds a kernel, its initramfs and its command line: what Talos 1.10
and later boots, vmlinuz.efi in its installer image.`

func ukiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uki",
		Short: "Show a unified kernel image, or put nametag into one",
		Long:  ukiLong,
		Example: `  nametagctl uki inspect vmlinuz.efi
  nametagctl uki edit vmlinuz.efi --nametag --wait 2m -o vmlinuz-nametag.efi`,
	}
	cmd.AddCommand(ukiInspectCommand(), ukiEditCommand())
	return cmd
}

// ukiArgument refuses everything but one IMAGE.
func ukiArgument(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &exitError{exitUsage, fmt.Errorf("uki %s: give one IMAGE; '%s --help' shows how", cmd.Name(), cmd.CommandPath())}
	}
	return nil
}

// runUKI runs a command's work until it is done or a signal ends it, and puts its error into form.
func runUKI(cmd *cobra.Command, output string, work func(context.Context) error) error {
	if output != "text" && output != "json" {
		return &exitError{exitUsage, fmt.Errorf("uki %s: --output %s: choose text or json", cmd.Name(), output)}
	}
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	err := work(ctx)
	var exit *exitError
	var signed *uki.SignedError
	switch {
	case err == nil, errors.As(err, &exit):
		return err
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted; no file was changed")
	case errors.As(err, &signed):
		err = fmt.Errorf("%w; no file was changed. --drop-signature writes the image without it, to be signed by you then: %s", err, signNext("OUT"))
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		err = fmt.Errorf("%w; no file was changed: make room, or write to another place with -o", err)
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w; no file was changed: write to another place with -o", err)
	}
	return &exitError{exitFailed, fmt.Errorf("uki %s: %w", cmd.Name(), err)}
}

// signNext is how an image is signed.
func signNext(name string) string {
	return fmt.Sprintf("sbsign --key db.key --cert db.crt --output %[1]s %[1]s", name)
}

func ukiJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func ukiInspectCommand() *cobra.Command {
	var output string
	var most limitFlags
	cmd := &cobra.Command{
		Use:   "inspect IMAGE [flags]",
		Short: "Show a unified kernel image: every command line, its initramfs, who signed it, its sections",
		Example: `  nametagctl uki inspect vmlinuz.efi
  nametagctl uki inspect --output json vmlinuz.efi | jq -r '.commandLines[].text'`,
		Args: ukiArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUKI(cmd, output, func(ctx context.Context) error { return inspectUKI(ctx, cmd, args[0], output, most.budget()) })
		},
	}
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	most.register(cmd)
	return cmd
}

// ukiReport is what inspect prints as JSON.
type ukiReport struct {
	File          string           `json:"file"`
	Size          int64            `json:"size"`
	Architecture  string           `json:"architecture"`
	Stub          string           `json:"stub,omitempty"`
	Kernel        string           `json:"kernel,omitempty"` // as uname -r gives it
	OS            string           `json:"os,omitempty"`     // its name to people
	Signatures    []uki.Signature  `json:"signatures"`
	PCRSignatures int              `json:"pcrSignatures"`
	Profiles      []uki.Profile    `json:"profiles"`
	CommandLines  []ukiCommandLine `json:"commandLines"`
	Initramfs     []ukiInitramfs   `json:"initramfs"`
	Sections      []uki.Section    `json:"sections"`
}

type ukiCommandLine struct {
	Profile string `json:"profile"`
	Text    string `json:"text"`
}

type ukiInitramfs struct {
	Profile string           `json:"profile"`
	Size    int64            `json:"size"`
	Nametag *initramfs.Added `json:"nametag"` // null: not added
	// Extension is where the imager put the helper of a system extension, if it did.
	Extension string `json:"extension,omitempty"`
	Error     string `json:"error,omitempty"` // why it could not be read
}

func inspectUKI(ctx context.Context, cmd *cobra.Command, name, output string, budget *limit.Budget) error {
	m, f, err := uki.OpenFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cmd.OutOrStdout()
	r, err := reportUKI(ctx, m, func(in *io.SectionReader) (*initramfs.Image, error) {
		return readInitramfs(ctx, in, in.Size(), name, budget, cmd.ErrOrStderr())
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.File = name
	if st, err := f.Stat(); err == nil {
		r.Size = st.Size()
	}
	if output == "json" {
		return ukiJSON(w, r)
	}
	return r.print(w, m)
}

func reportUKI(ctx context.Context, m *uki.Image, read func(*io.SectionReader) (*initramfs.Image, error)) (*ukiReport, error) {
	r := &ukiReport{
		Architecture: m.Machine.String(), Signatures: append([]uki.Signature{}, m.Signatures...),
		Profiles: append([]uki.Profile{}, m.Profiles...), Sections: m.Sections,
		CommandLines: []ukiCommandLine{}, Initramfs: []ukiInitramfs{},
	}
	for _, s := range m.Sections {
		switch s.Name {
		case ".cmdline":
			text, err := m.Text(s)
			if err != nil {
				return nil, err
			}
			r.CommandLines = append(r.CommandLines, ukiCommandLine{m.ProfileName(s.Profile), text})
		case ".initrd":
			i := ukiInitramfs{Profile: m.ProfileName(s.Profile), Size: s.Len()}
			if image, err := read(m.Data(s)); err != nil {
				if ctx.Err() != nil {
					return nil, err
				}
				i.Error = err.Error()
			} else {
				i.Nametag, i.Extension = image.Added(), extensionsHelper(image)
			}
			r.Initramfs = append(r.Initramfs, i)
		case ".pcrsig":
			r.PCRSignatures++
		}
	}
	text := func(name string) string {
		if found := m.Find(name); len(found) > 0 {
			if text, err := m.Text(found[0]); err == nil {
				return text
			}
		}
		return ""
	}
	r.Kernel, r.OS = text(".uname"), osName(text(".osrel"))
	// systemd's stub says so in a section of its own (its src/fundamental/sdmagic-macro.h).
	r.Stub = strings.TrimSpace(strings.TrimPrefix(strings.Trim(text(".sdmagic"), "# "), "LoaderInfo:"))
	return r, nil
}

// osName is what an os-release file calls the system.
func osName(release string) string {
	value := map[string]string{}
	for line := range strings.Lines(release) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		value[k] = strings.Trim(v, `"'`)
	}
	if name := value["PRETTY_NAME"]; name != "" {
		return name
	}
	return strings.TrimSpace(cmp.Or(value["NAME"], value["ID"]) + " " + value["VERSION_ID"])
}

func (r *ukiReport) print(w io.Writer, m *uki.Image) error {
	fmt.Fprintf(w, "%s: unified kernel image for %s, %s\n", r.File, r.Architecture, oci.Size(r.Size))
	for _, line := range []struct{ name, text string }{
		{"os", r.OS}, {"kernel", r.Kernel}, {"stub", r.Stub}, {"signature", signatures(r.Signatures)}, {"PCR signatures", fmt.Sprint(r.PCRSignatures)},
	} {
		if line.text != "" {
			fmt.Fprintf(w, "  %-15s %s\n", line.name, line.text)
		}
	}
	for _, c := range r.CommandLines {
		fmt.Fprintf(w, "  command line of %s:\n    %s\n", c.Profile, printable(c.Text))
	}
	for _, i := range r.Initramfs {
		what := "without nametag"
		switch {
		case i.Error != "":
			what = "which cannot be read: " + strings.TrimPrefix(i.Error, "initramfs: ")
		case i.Nametag != nil && i.Nametag.Way == initramfs.AsInit:
			what = "with nametag as /init"
		case i.Nametag != nil:
			what = "with nametag at /" + i.Nametag.Path
		case i.Extension != "":
			what = "with nametag of an extension at " + i.Extension
		}
		fmt.Fprintf(w, "  initramfs of %s: %s, %s\n", i.Profile, oci.Size(i.Size), what)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SECTION\tPROFILE\tADDRESS\tIN MEMORY\tOFFSET\tIN THE FILE")
	for _, s := range r.Sections {
		fmt.Fprintf(t, "%s\t%s\t0x%08x\t%d\t0x%08x\t%d\n", printable(s.Name), m.ProfileName(s.Profile), s.VirtualAddress, s.VirtualSize, s.Offset, s.Size)
	}
	return t.Flush()
}

func signatures(all []uki.Signature) string {
	if len(all) == 0 {
		return "none"
	}
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = "by " + printable(cmp.Or(strings.Join(s.Signers, ", "), "someone whose certificate cannot be read"))
	}
	return strings.Join(texts, "; ")
}

// printable keeps what a file holds from talking to the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

// ukiEdit are the flags of edit.
type ukiEdit struct {
	limitFlags
	out, output             string
	add, replace, remove    []string
	wait                    string
	initrd, helper          string
	nametag, rdinit, unsign bool
}

const ukiEditLong = `Write a unified kernel image again, with other kernel arguments, another initramfs, or nametag added to the one it has.
In place, unless -o names another file; either way the file is written as a whole or not at all.

Arguments are changed on every command line that the image has: one of Talos has two, of which the second is that of
the profile which resets a node. They stand before a "--", where the kernel still reads them.

No edit leaves a signature valid, so a signed image is refused without --drop-signature. PCR signatures (.pcrsig) stay
and do not match any more; what is sealed to them does not open until they are made anew.`

func ukiEditCommand() *cobra.Command {
	var f ukiEdit
	cmd := &cobra.Command{
		Use:   "edit IMAGE [flags]",
		Short: "Change the kernel arguments and the initramfs of a unified kernel image",
		Long:  ukiEditLong,
		Example: `  nametagctl uki edit vmlinuz.efi --nametag --wait 2m -o vmlinuz-nametag.efi
  nametagctl uki edit vmlinuz.efi --append "console=ttyS0,115200 panic=10"
  nametagctl uki edit vmlinuz.efi --initrd initramfs-nametag.zst --drop-signature -o unsigned.efi`,
		Args: ukiArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUKI(cmd, f.output, func(ctx context.Context) error { return f.run(ctx, cmd, args[0]) })
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&f.out, "out", "o", "", "write the result there and leave IMAGE as it is")
	flags.StringArrayVar(&f.add, "append", nil, "kernel arguments to add, unless they are there; may be repeated")
	flags.StringArrayVar(&f.replace, "replace", nil, "kernel arguments that take the place of those of the same name; may be repeated")
	flags.StringArrayVar(&f.remove, "remove", nil, "names of kernel arguments to take away; may be repeated")
	flags.StringVar(&f.wait, "wait", "", "how long a boot waits for the name, and what then: the value of talos.hostname.wait=")
	flags.BoolVar(&f.nametag, "nametag", false, "add nametag to the initramfs, as /init")
	flags.BoolVar(&f.rdinit, "rdinit", false, "with --nametag: leave /init as it is, and tell the kernel by rdinit=")
	flags.StringVar(&f.helper, "helper", "", "with --nametag: the helper's binary, or a folder of them (default: beside nametagctl, else the one that a release carries)")
	flags.StringVar(&f.initrd, "initrd", "", "put this file in the place of the initramfs")
	flags.BoolVar(&f.unsign, "drop-signature", false, "take the signature of a signed image away")
	flags.StringVar(&f.output, "output", "text", "text or json")
	return cmd
}

// ukiEditResult is what edit prints as JSON.
type ukiEditResult struct {
	File string `json:"file"`
	*uki.Result
	Changed  bool     `json:"changed"`
	Warnings []string `json:"warnings,omitempty"` // what will keep nametag from doing what was meant
}

func (f *ukiEdit) run(ctx context.Context, cmd *cobra.Command, name string) error {
	arguments, err := f.arguments()
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("uki edit: %w", err)}
	}
	edit := uki.Edit{DropSignature: f.unsign}
	if len(arguments.Append)+len(arguments.Replace)+len(arguments.Remove) > 0 {
		edit.CommandLine = arguments.Apply
	}
	if f.initrd != "" || f.nametag {
		m, image, err := uki.OpenFile(name)
		if err != nil {
			return err
		}
		defer image.Close()
		if f.nametag && !f.rdinit {
			edit.CommandLine = func(line string) (string, error) {
				line, err := arguments.Apply(line)
				if err != nil {
					return "", err
				}
				return line, leadsToInit(line)
			}
		}
		editor, done, err := f.editor(ctx, m, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer done()
		edit.Initramfs = editor
	}
	out := cmp.Or(f.out, name)
	result, err := uki.EditFile(ctx, name, out, edit)
	if err != nil {
		return err
	}
	w, warnings := cmd.OutOrStdout(), f.warnings(ctx, cmd, out, result)
	if f.output == "json" {
		return ukiJSON(w, ukiEditResult{out, result, result.Changed(), warnings})
	}
	printEdit(w, out, result)
	for _, text := range warnings {
		fmt.Fprintln(w, text)
	}
	return nil
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
func (f *ukiEdit) warnings(ctx context.Context, cmd *cobra.Command, name string, r *uki.Result) (warnings []string) {
	if !f.nametag && f.wait == "" {
		return nil
	}
	var o cmdline.Options
	if image, done, err := checkedImage(ctx, cmd, name, f.budget()); err == nil {
		defer done()
		o.Image = image
	}
	for _, c := range r.CommandLines {
		for _, found := range cmdline.Check(c.After, o) {
			warnings = append(warnings, "command line of "+c.Profile+": "+cmdlineSentence(found))
		}
	}
	return warnings
}

// arguments is what the flags say about the command lines.
func (f *ukiEdit) arguments() (a uki.Arguments, err error) {
	switch {
	case f.initrd != "" && f.nametag:
		return a, errors.New("choose --initrd, another initramfs, or --nametag, which adds to the one that is there")
	case !f.nametag && (f.helper != "" || f.rdinit):
		return a, errors.New("--helper and --rdinit belong to --nametag")
	}
	for _, list := range []struct {
		flag string
		from []string
		to   *[]string
	}{{"append", f.add, &a.Append}, {"replace", f.replace, &a.Replace}, {"remove", f.remove, &a.Remove}} {
		for _, text := range list.from {
			words, err := uki.Split(text)
			if err != nil {
				return a, fmt.Errorf("--%s: %w", list.flag, err)
			}
			*list.to = append(*list.to, words...)
		}
	}
	if f.wait != "" {
		policy, err := procfs.ParsePolicy(f.wait)
		if err != nil {
			return a, fmt.Errorf("--wait: %w", err)
		}
		a.Replace = append(a.Replace, policy.String())
	}
	if f.rdinit {
		a.Replace = append(a.Replace, "rdinit=/"+initramfs.DefaultPath, "init=/init")
	}
	if len(a.Append)+len(a.Replace)+len(a.Remove) == 0 && f.initrd == "" && !f.nametag && !f.unsign {
		return a, errors.New("nothing to do: --nametag --wait 2m is the usual; '--help' lists the rest")
	}
	return a, nil
}

// editor is what the flags say about the initramfs. done closes what it needs.
func (f *ukiEdit) editor(ctx context.Context, m *uki.Image, stderr io.Writer) (editor uki.InitramfsEditor, done func(), err error) {
	if f.initrd != "" {
		if n := len(m.Find(".initrd")); n > 1 {
			return nil, nil, fmt.Errorf("the image has %d initramfs, each for profiles of its own, and --initrd would make them one", n)
		}
		in, err := openInitramfs(ctx, f.initrd, m.Machine, f.budget(), stderr)
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
	found, err := helperFlags{path: f.helper}.find([]string{m.Machine.String()})
	if err != nil {
		return nil, nil, err
	}
	file, err := os.Open(found[0].Path)
	if err != nil {
		return nil, nil, err
	}
	h, err := initramfs.NewHelper(file, found[0].Size)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", found[0].Path, err), file.Close())
	}
	options, budget := initramfs.Options{}, f.budget()
	if f.rdinit {
		options.Way = initramfs.RDInit
	}
	return func(ctx context.Context, out io.Writer, in *io.SectionReader) error {
		image, err := readInitramfs(ctx, in, in.Size(), "the initramfs", budget, stderr)
		if err != nil {
			return err
		}
		change, err := image.Add(ctx, out, h, options)
		if err != nil || change.Changed {
			return err
		}
		return image.CopyTo(out) // it was in already
	}, func() { _ = file.Close() }, nil
}

// openInitramfs opens the initramfs that is to go into an image for that processor. What is none, or has no /init for the
// processor, makes an image that panics.
func openInitramfs(ctx context.Context, name string, machine uki.Machine, budget *limit.Budget, stderr io.Writer) (*os.File, error) {
	if err := regular(name); err != nil {
		return nil, err
	}
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	err = func() error {
		st, err := in.Stat()
		if err != nil {
			return err
		}
		image, err := readInitramfs(ctx, in, st.Size(), name, budget, stderr)
		if err != nil {
			return err
		}
		n, err := image.Lookup("init")
		if err != nil {
			return errors.New("it has no /init")
		}
		if its := image.Machine(n); its != 0 && initramfs.MachineName(its) != machine.String() {
			return fmt.Errorf("its /init is for %s, and the image for %s", initramfs.MachineName(its), machine)
		}
		_, err = in.Seek(0, io.SeekStart)
		return err
	}()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--initrd %s: %w", name, err), in.Close())
	}
	return in, nil
}

func printEdit(w io.Writer, name string, r *uki.Result) {
	if !r.Changed() {
		fmt.Fprintf(w, "%s: it was as asked already\n", name)
		return
	}
	fmt.Fprintf(w, "%s: %s\n", name, oci.Size(r.Size))
	for _, c := range r.CommandLines {
		verb := "command line of"
		if c.Before == c.After {
			verb = "command line, as it was, of"
		}
		fmt.Fprintf(w, "  %s %s:\n    %s\n", verb, c.Profile, printable(c.After))
	}
	for _, i := range r.Initramfs {
		fmt.Fprintf(w, "  initramfs of %s: %s, before %s\n", i.Profile, oci.Size(i.After), oci.Size(i.Before))
	}
	if r.DroppedSignatures > 0 {
		fmt.Fprintf(w, "The image is not signed any more. Where Secure Boot is on, sign it next, by a key that the firmware trusts:\n  %s\n", signNext(name))
	}
	if r.StalePCRSignatures > 0 {
		fmt.Fprintf(w, "Its PCR signatures (.pcrsig: %d) are over what was changed, and do not match any more. A disk that is sealed to them by\n"+
			"the TPM does not open. Where that is used, let Talos' imager make and sign the image, from 'nametagctl extension'.\n", r.StalePCRSignatures)
	}
}
