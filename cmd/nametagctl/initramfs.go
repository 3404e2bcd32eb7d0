package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/nametag-boot/nametag/internal/image/cmdline"
	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/oci"
	"github.com/nametag-boot/nametag/internal/image/whole"
	"github.com/nametag-boot/nametag/procfs"
)

const initramfsLong = `Put nametag into an initramfs, show what is in one, take nametag out again.

An initramfs is one or more archives behind each other, each a cpio archive as it is or compressed by gzip, xz, zstd or
lz4; early microcode may come first. nametag is appended as one more; what is there already is copied byte for byte.`

func initramfsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "initramfs",
		Short: "Put nametag into an initramfs, show what is in one, take it out again",
		Long:  initramfsLong,
		Example: `  nametagctl initramfs add initramfs-amd64.xz -o initramfs-nametag.xz
  nametagctl initramfs inspect initramfs-nametag.xz
  nametagctl initramfs remove initramfs-nametag.xz`,
	}
	cmd.AddCommand(initramfsAddCommand(), initramfsInspectCommand(), initramfsRemoveCommand())
	return cmd
}

// imageArgument refuses everything but one IMAGE.
func imageArgument(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &exitError{exitUsage, fmt.Errorf("initramfs %s: give one IMAGE; '%s --help' shows how", cmd.Name(), cmd.CommandPath())}
	}
	return nil
}

// initramfsAdd are the flags of add.
type initramfsAdd struct {
	helperFlags
	limitFlags
	out, at, compression, output string
	rdinit                       bool
}

const initramfsAddLong = `Append an archive with nametag to an initramfs. In place, unless -o names another file; either way the file is
written as a whole or not at all.

/init becomes nametag, and what it was becomes /init.next, which nametag executes in the end. With --rdinit /init stays
what it is, and nametag stands at a path of its own: then the kernel must be told. Either way nametag does nothing without
its kernel argument; the arguments to add are printed.

Done twice, nothing changes. Another helper replaces the one that was added before.`

func initramfsAddCommand() *cobra.Command {
	var f initramfsAdd
	cmd := &cobra.Command{
		Use:   "add IMAGE [flags]",
		Short: "Append nametag to an initramfs",
		Long:  initramfsAddLong,
		Example: `  nametagctl initramfs add initramfs-amd64.xz -o initramfs-nametag.xz
  nametagctl initramfs add --rdinit initramfs-amd64.xz`,
		Args: imageArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInitramfs(cmd, "add", func(ctx context.Context) error { return f.run(ctx, cmd, args[0]) })
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.out, "out", "o", "", "write the result there and leave IMAGE as it is")
	f.helperFlags.register(cmd)
	f.limitFlags.register(cmd)
	flags.BoolVar(&f.rdinit, "rdinit", false, "leave /init as it is; the kernel is told by rdinit=")
	flags.StringVar(&f.at, "path", "/"+initramfs.DefaultPath, "where the helper stands, with --rdinit")
	flags.StringVar(&f.compression, "compression", "auto", "of what is appended: none, gzip, xz, zstd, lz4, or auto: as the image has it, and none behind xz, which is slow")
	flags.StringVar(&f.output, "output", "text", "text or json")
	return cmd
}

func initramfsInspectCommand() *cobra.Command {
	var output string
	var most limitFlags
	cmd := &cobra.Command{
		Use:   "inspect IMAGE [flags]",
		Short: "Show an initramfs: its archives, its files with their sizes, and whether nametag is in it",
		Example: `  nametagctl initramfs inspect initramfs-amd64.xz
  nametagctl initramfs inspect --output json initramfs-amd64.xz | jq .segments`,
		Args: imageArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInitramfs(cmd, "inspect", func(ctx context.Context) error { return inspectInitramfs(ctx, cmd, args[0], output, most.budget()) })
		},
	}
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	most.register(cmd)
	return cmd
}

func initramfsRemoveCommand() *cobra.Command {
	var out, output string
	var most limitFlags
	cmd := &cobra.Command{
		Use:   "remove IMAGE [flags]",
		Short: "Take away what add has appended, byte for byte",
		Example: `  nametagctl initramfs remove initramfs-nametag.xz
  nametagctl initramfs remove initramfs-nametag.xz -o initramfs-amd64.xz`,
		Args: imageArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInitramfs(cmd, "remove", func(ctx context.Context) error {
				return removeInitramfs(ctx, cmd, args[0], out, output, most.budget())
			})
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write the result there and leave IMAGE as it is")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	most.register(cmd)
	return cmd
}

// runInitramfs runs a command's work until it is done or a signal ends it, and puts its error into form.
func runInitramfs(cmd *cobra.Command, name string, work func(context.Context) error) error {
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	err := work(ctx)
	var exit *exitError
	switch {
	case err == nil, errors.As(err, &exit):
		return err
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return &exitError{exitFailed, fmt.Errorf("initramfs %s: interrupted; no file was changed", name)}
	}
	text := strings.TrimPrefix(err.Error(), "initramfs: ")
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		text += "; no file was changed: make room, or write to another place with -o"
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		text += "; no file was changed: write to another place with -o"
	}
	return &exitError{exitFailed, fmt.Errorf("initramfs %s: %s", name, text)}
}

func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return &exitError{exitUsage, fmt.Errorf("initramfs: --output %s: choose text or json", output)}
	}
	return nil
}

// openImage opens an image and reads it through. The image needs the file for as long as it is used.
func openImage(ctx context.Context, name string, budget *limit.Budget, stderr io.Writer) (*os.File, *initramfs.Image, error) {
	if err := regular(name); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	im, err := readImage(ctx, f, budget, stderr)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, im, nil
}

func readImage(ctx context.Context, f *os.File, budget *limit.Budget, stderr io.Writer) (*initramfs.Image, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readInitramfs(ctx, f, st.Size(), f.Name(), budget, stderr)
}

// readInitramfs reads an initramfs, or that part of a file, and shows how far it has come.
func readInitramfs(ctx context.Context, r io.ReaderAt, size int64, name string, budget *limit.Budget, stderr io.Writer) (*initramfs.Image, error) {
	if file, ok := stderr.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return initramfs.Read(ctx, r, size, budget, nil) // it takes a second or two: nothing for a log
	}
	meter := oci.NewMeter(stderr, "reading "+filepath.Base(name))
	defer meter.Close()
	return initramfs.Read(ctx, r, size, budget, func(at int64) { meter.Update(at, size) })
}

// replaceImage writes the result of change over the image, or to out. Where change says that there is nothing to do,
// the image stays as it is.
func replaceImage(in *os.File, im *initramfs.Image, out string, change func(io.Writer) (initramfs.Change, error)) (initramfs.Change, error) {
	st, err := in.Stat()
	if err != nil {
		return initramfs.Change{}, err
	}
	inPlace := out == ""
	if inPlace {
		out = in.Name()
	} else if to, err := os.Stat(out); err == nil && os.SameFile(st, to) {
		inPlace = true
	}
	var c initramfs.Change
	errNothing := errors.New("nothing to do")
	err = whole.File(out, st.Mode(), func(w *os.File) (err error) {
		if c, err = change(w); err != nil || c.Changed {
			return err
		}
		if inPlace {
			return errNothing
		}
		return im.CopyTo(w)
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return c, err
}

// initramfsResult is what add and remove print as JSON.
type initramfsResult struct {
	File string `json:"file"`
	initramfs.Change
	KernelArguments []string `json:"kernelArguments,omitempty"`
	Warnings        []string `json:"warnings,omitempty"`
	Seconds         float64  `json:"seconds"`
}

func (f initramfsAdd) run(ctx context.Context, cmd *cobra.Command, name string) error {
	began := time.Now()
	if err := checkOutput(f.output); err != nil {
		return err
	}
	usage := func(err error) error { return &exitError{exitUsage, fmt.Errorf("initramfs add: %w", err)} }
	options := initramfs.Options{}
	if f.rdinit {
		options.Way, options.Path = initramfs.RDInit, f.at
	} else if cmd.Flags().Changed("path") {
		return usage(errors.New("--path belongs to --rdinit; without it the helper is /init"))
	}
	if f.compression != "auto" {
		format, err := initramfs.ParseFormat(f.compression)
		if err != nil {
			return usage(fmt.Errorf("--compression: %w, or auto", err))
		}
		options.Format = &format
	}
	in, im, err := openImage(ctx, name, f.budget(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer in.Close()
	h, closeHelper, err := f.open(im)
	if err != nil {
		return err
	}
	defer closeHelper()
	result := initramfsResult{File: f.out}
	if result.File == "" {
		result.File = name
	}
	if result.Change, err = replaceImage(in, im, f.out, func(w io.Writer) (initramfs.Change, error) {
		return im.Add(ctx, w, h, options)
	}); err != nil {
		return err
	}
	at := ""
	if f.rdinit {
		at = f.at
		if a := result.Segment.Added; a != nil {
			at = a.Path
		}
	}
	result.KernelArguments = cmdline.Arguments(procfs.Default().String(), at) // without them it does nothing
	result.Warnings = im.Warnings()
	for _, text := range result.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s: %s\n", name, text)
	}
	result.Seconds = time.Since(began).Seconds()
	return result.print(cmd.OutOrStdout(), f.output)
}

// open finds the helper for the image's processor, and opens it.
func (f initramfsAdd) open(im *initramfs.Image) (*initramfs.Helper, func(), error) {
	var architectures []string
	if n, err := im.Lookup("init"); err == nil {
		switch a := initramfs.MachineName(im.Machine(n)); a {
		case helper.AMD64, helper.ARM64:
			architectures = []string{a}
		}
	}
	if f.path != "" { // a mismatch is told better by Add
		if st, err := os.Stat(f.path); err == nil && !st.IsDir() {
			architectures = nil
		}
	}
	found, err := f.find(architectures)
	switch {
	case err != nil:
		return nil, nil, err
	case len(found) > 1:
		return nil, nil, fmt.Errorf("the image's /init does not tell which processor it is for; name the helper with --helper %s or %s", found[0].Path, found[1].Path)
	}
	file, err := os.Open(found[0].Path)
	if err != nil {
		return nil, nil, err
	}
	h, err := initramfs.NewHelper(file, found[0].Size)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", found[0].Path, err), file.Close())
	}
	return h, func() { _ = file.Close() }, nil
}

func removeInitramfs(ctx context.Context, cmd *cobra.Command, name, out, output string, budget *limit.Budget) error {
	began := time.Now()
	if err := checkOutput(output); err != nil {
		return err
	}
	in, im, err := openImage(ctx, name, budget, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer in.Close()
	result := initramfsResult{File: out}
	if out == "" {
		result.File = name
	}
	result.Change, err = replaceImage(in, im, out, func(w io.Writer) (initramfs.Change, error) { return im.Remove(ctx, w) })
	if err != nil {
		return err
	}
	result.Seconds = time.Since(began).Seconds()
	return result.print(cmd.OutOrStdout(), output)
}

func (r initramfsResult) print(w io.Writer, output string) error {
	if output == "json" {
		return initramfsJSON(w, r)
	}
	switch {
	case !r.Changed:
		fmt.Fprintf(w, "%s: nametag is in it already, with this helper; nothing changed\n", r.File)
	case r.Segment.Added == nil:
		fmt.Fprintf(w, "%s: nametag is taken out; %d bytes, as before it was added\n", r.File, r.After)
	default:
		what := "/init is nametag, and what /init was is /init.next"
		if r.Segment.Added.Way == initramfs.RDInit {
			what = "nametag is at /" + r.Segment.Added.Path
		}
		verb := "added"
		if r.Replaced {
			verb = "replaced"
		}
		fmt.Fprintf(w, "%s: nametag %s: %s\n  %s of %s, compression %s, at byte %d\n", r.File, verb, what, oci.Size(r.Segment.Size), oci.Size(r.After), r.Segment.Format, r.Segment.Offset)
	}
	if len(r.KernelArguments) > 0 {
		fmt.Fprintf(w, "kernel arguments to add: %s\n", strings.Join(r.KernelArguments, " "))
	}
	return nil
}

func initramfsJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// initramfsReport is what inspect prints as JSON.
type initramfsReport struct {
	File    string           `json:"file"`
	Size    int64            `json:"size"`
	Machine string           `json:"architecture"` // of /init
	Nametag *initramfs.Added `json:"nametag"`      // null: not added
	// Extension is where the imager put the helper of a system extension, if it did.
	Extension string              `json:"extension,omitempty"`
	Segments  []initramfs.Segment `json:"segments"`
	Lost      int                 `json:"lost"` // entries that the kernel drops
	Files     []initramfsFile     `json:"files"`
}

type initramfsFile struct {
	Path    string `json:"path"`
	Mode    string `json:"mode"`
	Size    int64  `json:"size"`
	Target  string `json:"target,omitempty"`
	Segment int    `json:"segment"`
}

func inspectInitramfs(ctx context.Context, cmd *cobra.Command, name, output string, budget *limit.Budget) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	in, im, err := openImage(ctx, name, budget, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer in.Close()
	r := initramfsReport{File: name, Size: im.Size, Machine: initramfs.MachineName(0), Nametag: im.Added(), Extension: extensionsHelper(im), Segments: im.Segments, Lost: im.Lost}
	if n, err := im.Lookup("init"); err == nil {
		r.Machine = initramfs.MachineName(im.Machine(n))
	}
	if output == "json" {
		r.list("", im.Root())
		return initramfsJSON(cmd.OutOrStdout(), r)
	}
	return r.print(cmd.OutOrStdout(), im)
}

// list puts a folder's files into the report.
func (r *initramfsReport) list(at string, n *initramfs.Node) {
	for name, child := range n.Children() {
		path := at + "/" + name
		r.Files = append(r.Files, initramfsFile{path, nodeMode(child.Mode), child.Size, child.Target, child.Segment})
		if child.IsDir() {
			r.list(path, child)
		}
	}
}

func (r initramfsReport) print(w io.Writer, im *initramfs.Image) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, /init is for %s, %s\n", r.File, oci.Size(r.Size), r.Machine, r.nametag())
	for i, s := range r.Segments {
		fmt.Fprintf(&b, "  archive %d: byte %d, %s, compression %s, unpacked %s, %d entries", i, s.Offset, oci.Size(s.Size), s.Format, oci.Size(s.Unpacked), s.Entries)
		if s.Added != nil {
			b.WriteString(" (nametag)")
		}
		b.WriteByte('\n')
		if s.Warning != "" {
			fmt.Fprintf(&b, "    warning: %s\n", s.Warning)
		}
	}
	if r.Lost > 0 {
		fmt.Fprintf(&b, "  %d entries are dropped by the kernel: their folder is missing\n", r.Lost)
	}
	b.WriteString("/\n")
	nodeTree(&b, "", im.Root())
	_, err := io.WriteString(w, b.String())
	return err
}

func (r initramfsReport) nametag() string {
	switch {
	case r.Nametag == nil && r.Extension != "":
		return "nametag of an extension at " + r.Extension + " for rdinit="
	case r.Nametag == nil:
		return "without nametag"
	case r.Nametag.Way == initramfs.RDInit:
		return "nametag at /" + r.Nametag.Path + " for rdinit="
	}
	return "nametag as /init"
}

// extensionsHelper is where the imager put the helper of a system extension; "": it did not.
func extensionsHelper(im *initramfs.Image) string {
	for _, line := range []string{"1.9", "1.10"} { // each has a path of its own
		release, err := extension.ParseTalos(line)
		if err != nil {
			continue
		}
		if n, err := im.Lookup(release.Path()); err == nil && n.IsRegular() {
			return "/" + release.Path()
		}
	}
	return ""
}

// nodeTree writes a folder's files, each with its mode, size and the archive that it comes from.
func nodeTree(b *strings.Builder, indent string, n *initramfs.Node) {
	type entry struct {
		name string
		node *initramfs.Node
	}
	var entries []entry
	for name, child := range n.Children() {
		entries = append(entries, entry{name, child})
	}
	for i, e := range entries {
		branch, below := "├── ", "│   "
		if i == len(entries)-1 {
			branch, below = "└── ", "    "
		}
		fmt.Fprintf(b, "%s%s%s", indent, branch, shownName(e.name))
		switch {
		case e.node.IsDir():
			b.WriteString("/\n")
			nodeTree(b, indent+below, e.node)
			continue
		case e.node.IsLink():
			fmt.Fprintf(b, " → %s", shownName(e.node.Target))
		case e.node.IsRegular():
			fmt.Fprintf(b, "  %s  %s", nodeMode(e.node.Mode), oci.Size(e.node.Size))
		default:
			fmt.Fprintf(b, "  %s", nodeMode(e.node.Mode))
		}
		fmt.Fprintf(b, "  [%d]\n", e.node.Segment)
	}
}

// shownName is a name that is safe on a terminal.
func shownName(s string) string {
	q := fmt.Sprintf("%q", s)
	if q == `"`+s+`"` {
		return s
	}
	return q
}

// nodeMode is a mode as ls shows it.
func nodeMode(mode uint32) string {
	m := fs.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	}
	return m.String()
}
