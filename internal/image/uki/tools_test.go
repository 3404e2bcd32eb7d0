package uki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tool runs one of the tools that others read such images with; the test is skipped where it is not installed.
func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	output, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(output), err
}

// edited is an edited image in a file.
func edited(t *testing.T) string {
	t.Helper()
	name := fake{parts: usual, checksum: 1, debug: true}.file(t)
	if _, err := EditFile(t.Context(), name, name, Edit{
		CommandLine: appending("talos.hostname.wait=2m"), Initramfs: replace(strings.Repeat("initramfs ", 5001)),
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestOtherReadersTakeAnEditedImage(t *testing.T) {
	name := edited(t)
	m, f, err := OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Run("objdump", func(t *testing.T) {
		output, err := tool(t, "objdump", "-h", name)
		if err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		for _, s := range m.Sections {
			// The kernel has more bytes in memory than in the file, which it shows in its own way.
			if want := fmt.Sprintf("%-13s %08x  %016x", s.Name, s.VirtualSize, s.VirtualAddress); s.Name != ".linux" && !strings.Contains(output, want) {
				t.Errorf("no %q in\n%s", want, output)
			}
		}
	})
	t.Run("llvm-readobj", func(t *testing.T) {
		output, err := tool(t, "llvm-readobj", "--file-headers", "--sections", name)
		if err != nil || strings.Contains(output, "warning") {
			t.Fatalf("%v\n%s", err, output)
		}
		for _, s := range m.Sections {
			if want := fmt.Sprintf("PointerToRawData: 0x%X", s.Offset); !strings.Contains(output, want) {
				t.Errorf("no %q in\n%s", want, output)
			}
		}
	})
}

func TestAnEditedImageCanBeSignedAndTheSignatureTakenOff(t *testing.T) {
	name := edited(t)
	dir := filepath.Dir(name)
	cert, key := signer(t, dir, "a throw-away key")
	output, err := tool(t, "osslsigncode", "verify", "-CAfile", cert, "-in", name)
	if err == nil || !strings.Contains(output, "No signature found") {
		t.Fatalf("before it is signed: %v\n%s", err, output)
	}
	if !strings.Contains(output, "PE checksum") || strings.Contains(output, "invalid PE checksum") {
		t.Errorf("%s", output)
	}
	signed := filepath.Join(dir, "signed.efi")
	if output, err := tool(t, "osslsigncode", "sign", "-certs", cert, "-key", key, "-in", name, "-out", signed); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	output, err = tool(t, "osslsigncode", "verify", "-CAfile", cert, "-in", signed)
	if err != nil || !strings.Contains(output, "Signature verification: ok") {
		t.Fatalf("%v\n%s", err, output)
	}

	_, err = EditFile(t.Context(), signed, signed, Edit{CommandLine: appending("a=b")})
	var refused *SignedError
	if !errors.As(err, &refused) || !slices.Equal(refused.Signers, []string{"a throw-away key"}) {
		t.Fatalf("%v", err)
	}
	result, err := EditFile(t.Context(), signed, signed, Edit{CommandLine: appending("a=b"), DropSignature: true})
	if err != nil || result.DroppedSignatures != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	output, err = tool(t, "osslsigncode", "verify", "-CAfile", cert, "-in", signed)
	if err == nil || !strings.Contains(output, "No signature found") {
		t.Errorf("%v\n%s", err, output)
	}
	if output, err := tool(t, "osslsigncode", "sign", "-certs", cert, "-key", key, "-in", signed, "-out", signed+".again"); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if output, err := tool(t, "osslsigncode", "verify", "-CAfile", cert, "-in", signed+".again"); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// signer makes a key and its certificate.
func signer(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private))
}
