//go:build linux

package controlplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"time"
)

// An authority is the cluster's, for everything.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// A pair is a certificate and its key, both as PEM.
type pair struct{ certificate, key []byte }

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template(pkix.Name{CommonName: "lab"})
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &authority{certificate, key, block("CERTIFICATE", der)}, err
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func template(subject pkix.Name) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

// issue makes a key and a certificate for it: a server's where it has addresses, a client's where it has none.
func (a *authority) issue(subject pkix.Name, addresses ...string) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	t := template(subject)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, address := range addresses {
		t.IPAddresses, t.ExtKeyUsage = append(t.IPAddresses, net.ParseIP(address)), []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	certificate, err := a.sign(t, key.Public())
	if err != nil {
		return pair{}, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	return pair{certificate, block("EC PRIVATE KEY", private)}, err
}

func (a *authority) sign(t *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, a.certificate, key, a.key)
	return block("CERTIFICATE", der), err
}

// answer signs a request as it is, for some uses.
func (a *authority) answer(request []byte, uses ...x509.ExtKeyUsage) ([]byte, error) {
	r, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	t := template(r.Subject)
	t.DNSNames, t.IPAddresses, t.KeyUsage, t.ExtKeyUsage = r.DNSNames, r.IPAddresses, x509.KeyUsageDigitalSignature, uses
	return a.sign(t, r.PublicKey)
}

func parseRequest(text []byte) (*x509.CertificateRequest, error) {
	b, _ := pem.Decode(text)
	if b == nil {
		return nil, errors.New("not PEM")
	}
	r, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return nil, err
	}
	return r, r.CheckSignature()
}

// served is the certificate that a TLS server at an address shows.
func served(address string) (*x509.Certificate, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // whose it is is the question
	c, err := dialer.Dial("tcp", address)                                                                                   //nolint:noctx // bounded by the dialer
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}
