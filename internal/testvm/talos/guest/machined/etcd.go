//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
)

const (
	etcdBinary = "/usr/bin/etcd"
	etcdClient = "http://127.0.0.1:2379"
	etcdPeer   = "http://127.0.0.1:2380"
)

// startEtcd starts etcd under the name, which it keeps whatever the node is called later, and reports what etcd itself
// says its member is called. An image without etcd has nothing to start.
func startEtcd(ctx context.Context, name string, log *report.Writer) error {
	if _, err := os.Stat(etcdBinary); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// Its output goes to the console: what to read when it does not come up.
	cmd := exec.CommandContext(ctx, etcdBinary, "--name="+name, "--data-dir=/var/lib/etcd", "--log-level=error",
		"--listen-client-urls="+etcdClient, "--advertise-client-urls="+etcdClient,
		"--listen-peer-urls="+etcdPeer, "--initial-advertise-peer-urls="+etcdPeer, "--initial-cluster="+name+"="+etcdPeer)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	for {
		if member, err := etcdMember(ctx); err == nil && member != "" {
			log.Write(report.Event{Kind: report.Member, Name: member})
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// etcdMember asks etcd's API for the name of its only member. It is empty until the member has published itself.
func etcdMember(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdClient+"/v3/cluster/member/list", bytes.NewReader([]byte("{}")))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	var list struct {
		Members []struct {
			Name string `json:"name"`
		} `json:"members"`
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return "", err
	}
	if len(list.Members) != 1 {
		return "", fmt.Errorf("etcd: %d members", len(list.Members))
	}
	return list.Members[0].Name, nil
}
