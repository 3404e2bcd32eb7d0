package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/cmdline"
	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/uki"
)

// CommandLine says which kernel arguments to add.
type CommandLine struct {
	Wait  string
	Path  string // where the helper stands; empty: as /init
	Talos string // the release whose extension it is; instead of Path
}

// CommandLineResult is them.
type CommandLineResult struct {
	Arguments []string `json:"arguments"`
	Line      string   `json:"line"`
}

// Run does it.
func (j *CommandLine) Run() (*CommandLineResult, error) {
	policy, err := WaitPolicy(j.Wait)
	if err != nil {
		return nil, err
	}
	path := j.Path
	switch {
	case j.Talos != "" && path != "":
		return nil, cli.Misusedf("--talos and --path both say where the helper stands: give one")
	case j.Talos != "":
		if path, err = talosPath(j.Talos); err != nil {
			return nil, err
		}
	}
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
		return nil, cli.Misusedf("--path %q: a kernel argument has no blanks, quotation marks or letters beyond ASCII", path)
	}
	r := &CommandLineResult{Arguments: cmdline.Arguments(policy, path)}
	r.Line = strings.Join(r.Arguments, " ")
	return r, nil
}

// Text is the line.
func (r *CommandLineResult) Text(w io.Writer) error {
	_, err := fmt.Fprintln(w, r.Line)
	return err
}

// talosPath is where an extension for that release of Talos has the helper.
func talosPath(release string) (string, error) {
	t, err := extension.ParseTalos(release)
	if err != nil {
		return "", cli.Misusedf("--talos: %w", err)
	}
	return t.Path(), nil
}

// CheckCommandLine looks for mistakes in a command line.
type CheckCommandLine struct {
	Line   string // "-" is the standard input
	Image  string // that it is for; may be empty
	Talos  string // the release whose extension it is for; may be empty
	Limits limit.Limits
}

// Findings are what was found.
type Findings struct {
	Right    bool              `json:"right"` // there is no mistake
	Findings []cmdline.Finding `json:"findings"`
}

// maxCommandLine is more than any kernel takes.
const maxCommandLine = 64 << 10

// Read reads the line from the standard input where it is to come from there.
func (j *CheckCommandLine) Read(in io.Reader) error {
	if j.Line != Stdio {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(in, maxCommandLine+1))
	if err == nil && len(b) > maxCommandLine {
		err = fmt.Errorf("standard input has more than %d bytes: that is no command line", maxCommandLine)
	}
	j.Line = string(b)
	return err
}

// Run does it.
func (j *CheckCommandLine) Run(ctx context.Context, c Console) (*Findings, error) {
	var o cmdline.Options
	var err error
	if j.Talos != "" {
		if o.Path, err = talosPath(j.Talos); err != nil {
			return nil, err
		}
	}
	if j.Image != "" {
		im, done, err := checkedImage(ctx, j.Image, &limit.Budget{Limits: j.Limits}, c)
		if err != nil {
			return nil, err
		}
		defer done()
		o.Image = im
	}
	f := &Findings{Findings: append([]cmdline.Finding{}, cmdline.Check(j.Line, o)...)}
	f.Right = !slices.ContainsFunc(f.Findings, func(f cmdline.Finding) bool { return f.Mistake })
	return f, nil
}

// Text is a sentence for each.
func (f *Findings) Text(w io.Writer) error {
	for _, one := range f.Findings {
		fmt.Fprintln(w, sentence(one))
	}
	if f.Right {
		fmt.Fprintln(w, "no mistake found")
	}
	return nil
}

// checkedImage opens an initramfs, or the one of a unified kernel image.
func checkedImage(ctx context.Context, name string, budget *limit.Budget, c Console) (*initramfs.Image, func(), error) {
	if !isEFI(name) {
		in, err := openInitramfs(ctx, name, budget, c)
		return in.image, in.close, err
	}
	m, file, err := uki.OpenFile(name)
	if err != nil {
		return nil, nil, err
	}
	im, err := func() (*initramfs.Image, error) {
		found := m.Find(".initrd")
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: it has no initramfs", name)
		}
		data := m.Data(found[0])
		return readInitramfs(ctx, data, data.Size(), name, budget, c)
	}()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return im, func() { _ = file.Close() }, nil
}

// isEFI says whether a file is an EFI program. What cannot be read is none.
func isEFI(name string) bool {
	if Regular(name) != nil {
		return false
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [2]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "MZ"
}

// sentence is a finding in one line that is safe on a terminal.
func sentence(f cmdline.Finding) string {
	s := "hint: "
	if f.Mistake {
		s = "mistake: "
	}
	if f.Argument != "" && !strings.HasPrefix(f.Problem, f.Argument) { // procfs names the argument itself
		s += f.Argument + ": "
	}
	s += f.Problem
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return cli.Line(s)
}
