package initramfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"unicode"
)

// Way is how nametag comes before the OS's own first process.
type Way uint8

// The two ways in.
const (
	// AsInit: /init is nametag, and /init.next what /init was. Nothing on the command line can dangle.
	AsInit Way = iota
	// RDInit: nametag stands at a path of its own, and the kernel must be told: rdinit=/PATH init=/init.
	RDInit
)

// String is "init" or "rdinit".
func (w Way) String() string {
	if w == RDInit {
		return "rdinit"
	}
	return "init"
}

// MarshalText is String, for JSON.
func (w Way) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (w *Way) UnmarshalText(b []byte) error {
	if *w = AsInit; string(b) == "rdinit" {
		*w = RDInit
	}
	return nil
}

// The names of what Add puts in.
const (
	initName = "init"
	nextName = "init.next"
	// DefaultPath is where RDInit puts the helper: where a system extension of Talos 1.10 and later has it.
	DefaultPath = "usr/lib/firmware/nametag/nametag"
	// markerName is the first entry of an archive of ours. It is in the unpacked tree too, a few hundred bytes for
	// whoever wonders what happened to /init.
	markerName = ".nametag.json"
	// nullName is opened by Go's runtime in the place of each standard file that a process is not given, and where it cannot
	// be, the process ends. The kernel gives its first process none where there is no console, and an initramfs that counts on
	// devtmpfs has no such device yet. Its own /dev/console it has from the kernel.
	nullName = "dev/null"
	schema   = "nametag.initramfs.v1"
	// maxOurEntries is more than an archive of ours has.
	maxOurEntries = 64
)

// Added says what Add has appended.
type Added struct {
	Schema  string   `json:"schema"`
	Way     Way      `json:"way"`
	Path    string   `json:"path"`    // of the helper, with no leading slash
	Helper  string   `json:"helper"`  // the SHA-256 of the helper, hexadecimal
	Padding int64    `json:"padding"` // zero bytes of ours in front of the archive
	Entries []string `json:"entries"` // what is in the archive, the marker first
}

// parseMarker is what our marker says; nil where it is none.
func parseMarker(b []byte) *Added {
	var a Added
	if json.Unmarshal(b, &a) != nil || a.Schema != schema || len(a.Entries) > maxOurEntries {
		return nil
	}
	if strings.ContainsFunc(a.Path, func(r rune) bool { return !unicode.IsPrint(r) }) { // it is shown on terminals
		return nil
	}
	return &a
}

// Added is what Add has appended to the image last; nil if nothing.
func (im *Image) Added() *Added {
	for _, s := range slices.Backward(im.Segments) {
		if s.Added != nil {
			return s.Added
		}
	}
	return nil
}

// ours is where the archives of ours begin and end, with their padding: nothing but zero bytes stands behind the last.
// It is an error if one cannot be taken out again as it came.
func (im *Image) ours() (begin, end int64, err error) {
	begin, end = im.Size, im.Size
	for i, s := range slices.Backward(im.Segments) {
		if s.Added == nil {
			if slices.ContainsFunc(im.Segments[:i], func(s Segment) bool { return s.Added != nil }) {
				return 0, 0, refuse("begin with the image as it was before nametag was added",
					"the archive at byte %d was appended behind nametag's", s.Offset)
			}
			break
		}
		if end == im.Size {
			end = s.End()
		}
		if begin < im.Size && s.End() != begin { // another of ours behind it
			return 0, 0, refuse("begin with the image as it was before nametag was added", "there is something between two archives of nametag's at byte %d", s.End())
		}
		if err := im.verify(s); err != nil {
			return 0, 0, err
		}
		begin = s.Offset - s.Added.Padding
	}
	return begin, end, nil
}

// verify makes sure that an archive with our marker is what Add has appended.
func (im *Image) verify(s Segment) error {
	changed := func(what string) error {
		return refuse("begin with the image as it was before nametag was added",
			"the archive at byte %d has nametag's marker, but it is not what nametag appended: %s", s.Offset, what)
	}
	if s.trailers != 1 || !slices.Equal(s.names, s.Added.Entries) {
		return changed("there are other files in it")
	}
	if s.Added.Padding < 0 || s.Added.Padding > 8 || s.Added.Padding > s.Offset {
		return changed("its padding cannot be right")
	}
	padding := make([]byte, s.Added.Padding)
	if _, err := im.src.ReadAt(padding, s.Offset-s.Added.Padding); err != nil {
		return err
	}
	if len(bytes.Trim(padding, "\x00")) > 0 {
		return changed("its padding is not in front of it")
	}
	return nil
}

// hash is the SHA-256 of what a reader gives, hexadecimal.
func hash(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
