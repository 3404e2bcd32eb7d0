//go:build linux

package main

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

// ask asks the metadata service once for the hostname, as any program would, over whatever network there is.
func ask(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
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

// invent makes a name such as Talos makes where it has none.
func invent() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	letters := func() string {
		b := make([]byte, 3)
		for i := range b {
			b[i] = alphabet[rand.IntN(len(alphabet))] //nolint:gosec // a name
		}
		return string(b)
	}
	return "talos-" + letters() + "-" + letters()
}
