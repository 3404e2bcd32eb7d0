package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"aead.dev/minisign"
)

// A release is signed by whoever makes it, with a key of their own in minisign's form; nothing here has one.
const (
	signatureFile = sumsFile + ".minisig"
	passwordEnv   = "MINISIGN_PASSWORD"
)

// sign signs the checksums, and with them everything that they name, so that minisign -V accepts them. The key may be
// encrypted; its password stands in the environment, where no list of processes shows it.
func sign(dir, keyFile, version string) error {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	key, err := unlock(bytes.TrimSpace(text))
	if err != nil {
		return fmt.Errorf("the key %s: %w", keyFile, err)
	}
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return err
	}
	// By the reader: it signs the hash of the file, as minisign has done by default since 0.10.
	reader := minisign.NewReader(bytes.NewReader(sums))
	if _, err := io.Copy(io.Discard, reader); err != nil {
		return err
	}
	signature := reader.SignWithComments(key, "nametag "+version+" "+sumsFile, "signature of a release of nametag")
	return os.WriteFile(filepath.Join(dir, signatureFile), signature, 0o644) //nolint:gosec // for everybody to read
}

func unlock(text []byte) (minisign.PrivateKey, error) {
	if !minisign.IsEncrypted(text) {
		var key minisign.PrivateKey
		err := key.UnmarshalText(text)
		return key, err
	}
	password, given := os.LookupEnv(passwordEnv)
	if !given {
		return minisign.PrivateKey{}, errors.New("it is encrypted: put its password into " + passwordEnv)
	}
	return minisign.DecryptKey(password, text)
}
