//go:build linux

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// asExample makes the test binary be the example itself.
const asExample = "NAMETAG_TEST_EXAMPLE"

func TestMain(m *testing.M) {
	if os.Getenv(asExample) != "" {
		main()
		os.Exit(0)
	}
	netns.Main(m)
}

func TestTheExamplePrintsTheName(t *testing.T) {
	lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "web-1"}})
	cmd := lab.Command("/proc/self/exe", "eth0")
	cmd.Env = append(os.Environ(), asExample+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "web-1" {
		t.Fatalf("it says %q: %v", out, err)
	}
}
