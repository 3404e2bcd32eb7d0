package jobs

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/uki"
)

// UKIReport is what is in a unified kernel image.
type UKIReport struct {
	File          string           `json:"file"`
	Size          int64            `json:"size"`
	Architecture  string           `json:"architecture"`
	Stub          string           `json:"stub,omitempty"`
	Kernel        string           `json:"kernel,omitempty"` // as uname -r gives it
	OS            string           `json:"os,omitempty"`     // its name to people
	Signatures    []uki.Signature  `json:"signatures"`
	PCRSignatures int              `json:"pcr_signatures"`
	Profiles      []uki.Profile    `json:"profiles"`
	CommandLines  []UKICommandLine `json:"command_lines"`
	Initramfs     []UKIInitramfs   `json:"initramfs"`
	Sections      []uki.Section    `json:"sections"`

	image *uki.Image
}

// UKICommandLine is the command line of one of its profiles.
type UKICommandLine struct {
	Profile string `json:"profile"`
	Text    string `json:"text"`
}

// UKIInitramfs is one of its initramfs.
type UKIInitramfs struct {
	Profile string           `json:"profile"`
	Size    int64            `json:"size"`
	Nametag *initramfs.Added `json:"nametag"` // null: not added
	// Extension is where the imager put the helper of a system extension, if it did.
	Extension string `json:"extension,omitempty"`
	Error     string `json:"error,omitempty"` // why it could not be read
}

// InspectUKI shows what is in a unified kernel image.
type InspectUKI struct {
	Image  string
	Limits limit.Limits
}

// Run does it.
func (j *InspectUKI) Run(ctx context.Context, c Console) (*UKIReport, error) {
	m, f, err := uki.OpenFile(j.Image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	budget := &limit.Budget{Limits: j.Limits}
	r, err := reportUKI(ctx, m, func(in *io.SectionReader) (*initramfs.Image, error) {
		return readInitramfs(ctx, in, in.Size(), j.Image, budget, c)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", j.Image, err)
	}
	r.File, r.image = j.Image, m
	if st, err := f.Stat(); err == nil {
		r.Size = st.Size()
	}
	return r, nil
}

func reportUKI(ctx context.Context, m *uki.Image, read func(*io.SectionReader) (*initramfs.Image, error)) (*UKIReport, error) {
	r := &UKIReport{
		Architecture: m.Machine.String(), Signatures: append([]uki.Signature{}, m.Signatures...),
		Profiles: append([]uki.Profile{}, m.Profiles...), Sections: m.Sections,
		CommandLines: []UKICommandLine{}, Initramfs: []UKIInitramfs{},
	}
	for _, s := range m.Sections {
		switch s.Name {
		case ".cmdline":
			text, err := m.Text(s)
			if err != nil {
				return nil, err
			}
			r.CommandLines = append(r.CommandLines, UKICommandLine{m.ProfileName(s.Profile), text})
		case ".initrd":
			i := UKIInitramfs{Profile: m.ProfileName(s.Profile), Size: s.Len()}
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

// Text shows it.
func (r *UKIReport) Text(w io.Writer) error {
	fmt.Fprintf(w, "%s: unified kernel image for %s, %s\n", cli.Line(r.File), r.Architecture, cli.Size(r.Size))
	for _, line := range []struct{ name, text string }{
		{"os", r.OS}, {"kernel", r.Kernel}, {"stub", r.Stub}, {"signature", signatures(r.Signatures)}, {"PCR signatures", fmt.Sprint(r.PCRSignatures)},
	} {
		if line.text != "" {
			fmt.Fprintf(w, "  %-15s %s\n", line.name, cli.Line(line.text))
		}
	}
	for _, c := range r.CommandLines {
		fmt.Fprintf(w, "  command line of %s:\n    %s\n", cli.Line(c.Profile), cli.Line(c.Text))
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
		fmt.Fprintf(w, "  initramfs of %s: %s, %s\n", cli.Line(i.Profile), cli.Size(i.Size), cli.Line(what))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SECTION\tPROFILE\tADDRESS\tIN MEMORY\tOFFSET\tIN THE FILE")
	for _, s := range r.Sections {
		fmt.Fprintf(t, "%s\t%s\t0x%08x\t%d\t0x%08x\t%d\n", cli.Line(s.Name), cli.Line(r.image.ProfileName(s.Profile)), s.VirtualAddress, s.VirtualSize, s.Offset, s.Size)
	}
	return t.Flush()
}

func signatures(all []uki.Signature) string {
	if len(all) == 0 {
		return "none"
	}
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = "by " + cli.Line(cmp.Or(strings.Join(s.Signers, ", "), "someone whose certificate cannot be read"))
	}
	return strings.Join(texts, "; ")
}
