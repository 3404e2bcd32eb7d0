package uki

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"slices"
)

// The certificate table: "The Attribute Certificate Table" of Microsoft's "PE Format".
const (
	certHeaderSize = 8
	certPKCS7      = 2
	maxCerts       = 1 << 20 // bytes; a signature has about two thousand
)

// Signature is one of an image's Authenticode signatures. That it is valid is not checked here.
type Signature struct {
	Signers []string `json:"signers,omitempty"` // the common names of its certificates, as far as they can be read
	Size    uint32   `json:"size"`              // bytes
}

// Signed says whether the image has a certificate table.
func (m *Image) Signed() bool { return len(m.Signatures) > 0 }

// certificates is where the certificate table stands; both are zero where there is none.
func (m *Image) certificates() (offset, size int64) {
	place, n, _ := m.header.directory(directorySecurity)
	if place == 0 || n == 0 {
		return 0, 0
	}
	return int64(place), int64(n)
}

func (m *Image) readSignatures() error {
	offset, size := m.certificates()
	if size == 0 {
		return nil
	}
	_, _, at := m.header.directory(directorySecurity)
	switch {
	case size > maxCerts:
		return bad(int64(at), "a certificate table of %d bytes", size)
	case offset < m.sectionsEnd():
		return bad(int64(at), "the certificate table is to begin at 0x%x, before the end of the sections at 0x%x", offset, m.sectionsEnd())
	}
	table, err := m.read(offset, size, "the certificate table")
	if err != nil {
		return err
	}
	if offset+size != m.size {
		return bad(offset+size, "%d bytes behind the certificate table", m.size-offset-size)
	}
	for at := uint32(0); int(at) < len(table); {
		rest := table[at:]
		if len(rest) < certHeaderSize {
			return bad(offset+int64(at), "the certificate table ends within an entry")
		}
		n := binary.LittleEndian.Uint32(rest)
		if n < certHeaderSize || int64(n) > int64(len(rest)) {
			return bad(offset+int64(at), "an entry of %d bytes in the %d that are left of the certificate table", n, len(rest))
		}
		s := Signature{Size: n}
		if binary.LittleEndian.Uint16(rest[6:]) == certPKCS7 {
			s.Signers = signers(rest[certHeaderSize:n])
		}
		m.Signatures = append(m.Signatures, s)
		at += (n + 7) &^ 7 // entries are aligned
	}
	return nil
}

// signers is the common names of the certificates in a PKCS #7 message (RFC 2315, section 9.1).
func signers(message []byte) []string {
	var outer struct {
		Kind    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(message, &outer); err != nil {
		return nil
	}
	var signed struct {
		Version      int
		Digests      asn1.RawValue
		Content      asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
	}
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &signed); err != nil {
		return nil
	}
	certs, err := x509.ParseCertificates(signed.Certificates.Bytes)
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range certs {
		if name := c.Subject.CommonName; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
