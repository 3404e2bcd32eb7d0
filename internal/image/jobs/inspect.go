package jobs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/extension"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
)

// InspectInitramfs shows what is in an initramfs.
type InspectInitramfs struct {
	Image  string
	Limits limit.Limits
	Files  bool // list them in the report
}

// InitramfsReport is what is in one.
type InitramfsReport struct {
	File    string           `json:"file"`
	Size    int64            `json:"size"`
	Machine string           `json:"architecture"` // of /init
	Nametag *initramfs.Added `json:"nametag"`      // null: not added
	// Extension is where the imager put the helper of a system extension, if it did.
	Extension string              `json:"extension,omitempty"`
	Segments  []initramfs.Segment `json:"segments"`
	Lost      int                 `json:"lost"` // entries that the kernel drops
	Files     []InitramfsFile     `json:"files"`

	root *initramfs.Node
}

// InitramfsFile is one of its files.
type InitramfsFile struct {
	Path    string `json:"path"`
	Mode    string `json:"mode"`
	Size    int64  `json:"size"`
	Target  string `json:"target,omitempty"`
	Segment int    `json:"segment"`
}

// Run does it.
func (j *InspectInitramfs) Run(ctx context.Context, c Console) (*InitramfsReport, error) {
	in, err := openInitramfs(ctx, j.Image, &limit.Budget{Limits: j.Limits}, c)
	if err != nil {
		return nil, err
	}
	defer in.close()
	im := in.image
	r := &InitramfsReport{
		File: j.Image, Size: im.Size, Machine: initramfs.MachineName(0), Nametag: im.Added(), Extension: extensionsHelper(im),
		Segments: im.Segments, Lost: im.Lost, root: im.Root(),
	}
	if n, err := im.Lookup("init"); err == nil {
		r.Machine = initramfs.MachineName(im.Machine(n))
	}
	if j.Files {
		r.list("", im.Root())
	}
	return r, nil
}

// list puts a folder's files into the report.
func (r *InitramfsReport) list(at string, n *initramfs.Node) {
	for name, child := range n.Children() {
		path := at + "/" + name
		r.Files = append(r.Files, InitramfsFile{path, nodeMode(child.Mode), child.Size, child.Target, child.Segment})
		if child.IsDir() {
			r.list(path, child)
		}
	}
}

// Text draws it.
func (r *InitramfsReport) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, /init is for %s, %s\n", cli.Line(r.File), cli.Size(r.Size), r.Machine, r.nametag())
	for i, s := range r.Segments {
		fmt.Fprintf(&b, "  archive %d: byte %d, %s, compression %s, unpacked %s, %d entries", i, s.Offset, cli.Size(s.Size), s.Format, cli.Size(s.Unpacked), s.Entries)
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
	nodeTree(&b, "", r.root)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *InitramfsReport) nametag() string {
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
			fmt.Fprintf(b, "  %s  %s", nodeMode(e.node.Mode), cli.Size(e.node.Size))
		default:
			fmt.Fprintf(b, "  %s", nodeMode(e.node.Mode))
		}
		fmt.Fprintf(b, "  [%d]\n", e.node.Segment)
	}
}

// shownName is a name in quotation marks where it is not plain to read.
func shownName(s string) string {
	q := fmt.Sprintf("%q", s)
	if q == `"`+s+`"` {
		return s
	}
	return q
}

// The types and bits of a mode, as an archive has them.
const (
	typeMask                                                     = 0o170000
	typeFIFO, typeChar, typeDir, typeBlock, typeLink, typeSocket = 0o010000, 0o020000, 0o040000, 0o060000, 0o120000, 0o140000
	setUID, setGID, sticky                                       = 0o4000, 0o2000, 0o1000
)

// nodeMode is a mode as ls shows it.
func nodeMode(mode uint32) string {
	m := fs.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{setUID: fs.ModeSetuid, setGID: fs.ModeSetgid, sticky: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	m |= map[uint32]fs.FileMode{
		typeDir: fs.ModeDir, typeLink: fs.ModeSymlink, typeChar: fs.ModeDevice | fs.ModeCharDevice, typeBlock: fs.ModeDevice,
		typeFIFO: fs.ModeNamedPipe, typeSocket: fs.ModeSocket,
	}[mode&typeMask]
	return m.String()
}
