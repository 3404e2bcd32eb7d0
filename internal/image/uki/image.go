package uki

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// The sections that are looked at here (UPI.5).
const (
	secLinux   = ".linux"
	secInitrd  = ".initrd"
	secCmdline = ".cmdline"
	secProfile = ".profile"
	secPCRSig  = ".pcrsig"
)

// payload is the sections that are found by their name: by the stub, all but .sbat, which the shim reads.
var payload = map[string]bool{
	secLinux: true, secInitrd: true, secCmdline: true, secProfile: true, secPCRSig: true,
	".osrel": true, ".uname": true, ".splash": true, ".dtb": true, ".dtbauto": true, ".hwids": true, ".efifw": true,
	".ucode": true, ".pcrpkey": true, ".sbat": true,
}

// maxText bounds what is read as text: the biggest of these sections, .pcrsig, has some kilobytes.
const maxText = 64 << 10

// Image is a unified kernel image.
type Image struct {
	Machine  Machine
	Sections []Section // in the order of the section table, which is that of their profiles
	// Profiles are those that the image has besides its base, what stands before the first .profile. A section of a
	// profile takes the place of the base's.
	Profiles   []Profile
	Signatures []Signature

	reader io.ReaderAt
	size   int64
	header header
}

// Section is one section.
type Section struct {
	Name           string `json:"name"`
	Profile        int    `json:"profile"` // 0: the base; n: Profiles[n-1]
	VirtualAddress uint32 `json:"virtual_address"`
	VirtualSize    uint32 `json:"virtual_size"`
	Offset         uint32 `json:"offset"` // in the file
	Size           uint32 `json:"size"`   // in the file, with its padding

	flags uint32
	raw   [sectionHeaderSize]byte
	fixed bool // it may not move
}

// Len is how many bytes of the file the section's content has, without its padding.
func (s Section) Len() int64 {
	if s.VirtualSize == 0 || s.VirtualSize > s.Size {
		return int64(s.Size)
	}
	return int64(s.VirtualSize)
}

// span is the bytes of memory that it takes.
func (s Section) span() uint64 {
	if s.VirtualSize == 0 {
		return uint64(s.Size)
	}
	return uint64(s.VirtualSize)
}

// Profile is one of an image's.
type Profile struct {
	ID    string `json:"id,omitempty"`
	Title string `json:"title,omitempty"`
}

// Open reads the headers of an image of that many bytes. An error is an *Error, or the reader's.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	m := &Image{reader: r, size: size}
	if err := m.readHeader(); err != nil {
		return nil, err
	}
	if err := m.readSections(); err != nil {
		return nil, err
	}
	linux := false
	for i := range m.Sections {
		s := &m.Sections[i]
		linux = linux || s.Name == secLinux
		if s.Name == secProfile {
			text, err := m.Text(*s)
			if err != nil {
				return nil, err
			}
			m.Profiles = append(m.Profiles, parseProfile(text))
		}
		s.Profile = len(m.Profiles)
	}
	if !linux {
		return nil, bad(-1, "an EFI program, but no unified kernel image: it has no section %s", secLinux)
	}
	return m, m.readSignatures()
}

// parseProfile reads the lines KEY=VALUE of a section .profile.
func parseProfile(text string) Profile {
	var p Profile
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.Trim(value, `"'`); key {
		case "ID":
			p.ID = value
		case "TITLE":
			p.Title = value
		}
	}
	return p
}

// ProfileName is what a profile is called to a person.
func (m *Image) ProfileName(n int) string {
	switch {
	case n == 0:
		return "base"
	case n > len(m.Profiles) || m.Profiles[n-1].ID == "":
		return fmt.Sprintf("profile %d", n-1) // as the stub counts them
	default:
		return m.Profiles[n-1].ID
	}
}

// Find is every section of the name, in order.
func (m *Image) Find(name string) []Section {
	var found []Section
	for _, s := range m.Sections {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// Data is a section's content, without its padding.
func (m *Image) Data(s Section) *io.SectionReader {
	return io.NewSectionReader(m.reader, int64(s.Offset), s.Len())
}

// Text is the content of a section that holds text, without zero bytes and white space at its end.
func (m *Image) Text(s Section) (string, error) {
	if s.Len() > maxText {
		return "", bad(int64(s.Offset), "section %s has %d bytes, more than any text there", s.Name, s.Len())
	}
	b := make([]byte, s.Len())
	if _, err := m.Data(s).ReadAt(b, 0); err != nil && err != io.EOF { //nolint:errorlint // a ReaderAt's own
		return "", err
	}
	return string(bytes.TrimRight(b, "\x00 \t\r\n")), nil
}
