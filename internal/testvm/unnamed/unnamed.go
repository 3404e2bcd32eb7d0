//go:build linux

// Package unnamed is what a system does that has no name: it asks for one as any program would, and invents one as Talos
// does. The boots of the lab that are to show the bug are made of it.
package unnamed

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// Ask asks the metadata service once for the hostname, over whatever network there is, for as long as atMost.
func Ask(ctx context.Context, atMost time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/hetzner/v1/metadata/hostname", http.NoBody)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 1024))
	return strings.TrimSpace(string(body)), err
}

// Invent is a name of the form talos-xxx-xxx.
func Invent() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	b := []byte("talos-xxx-xxx")
	for i, c := range b {
		if c == 'x' {
			b[i] = letters[rand.IntN(len(letters))] //nolint:gosec // a name
		}
	}
	return string(b)
}
