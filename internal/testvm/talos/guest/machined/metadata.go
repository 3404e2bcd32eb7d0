//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

const base = "http://169.254.169.254/hetzner/v1/"

// platformName asks for the platform's hostname at once, whether there is a network or not, and then after 0, 1, 3, 7,
// 15, 31 and 63 s, as Talos does: with a network that takes a second, the name is late by several.
func platformName(ctx context.Context, log *report.Writer) string {
	pauses := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second, 63 * time.Second}
	for i := 0; ; i++ {
		status, body, err := get(ctx, "metadata/hostname")
		name := strings.TrimSpace(body)
		if err == nil && (status == http.StatusNotFound || status == http.StatusNoContent) {
			name = "" // Talos takes both for a platform without a name
		} else if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		event := report.Event{Kind: report.Metadata, Name: name}
		if err != nil {
			event.Text = err.Error()
		}
		log.Write(event)
		if err == nil {
			return name
		}
		if i == len(pauses) {
			return ""
		}
		time.Sleep(pauses[i])
	}
}

// userData asks for the machine's configuration until it is there.
func userData(ctx context.Context, log *report.Writer) string {
	for {
		status, body, err := get(ctx, "userdata")
		if err == nil && status == http.StatusOK {
			log.Write(report.Event{Kind: report.Config})
			return body
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// get makes one attempt, on a connection of its own. Its time to connect is less than the second after which the
// kernel sends a SYN again: an attempt that began before the service was there must not come through after all.
func get(ctx context.Context, path string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{Timeout: 700 * time.Millisecond}).DialContext,
	}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, string(body), err
}
