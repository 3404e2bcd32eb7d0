package boot_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

const server = "example-controlplane-3d3d26d1-69c5k"

// helper is the node's binary as it ships, built once.
func helper(t *testing.T) string {
	t.Helper()
	path, err := buildHelper()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildHelper = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nametag-boot-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "nametag")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", "nethttpomithttp2", "-o", path, "../../cmd/nametag")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	return path, build.Run()
})

// The cure: the same boot as the bug's, with the helper.
func TestWithTheHelperEtcdJoinsUnderTheServersName(t *testing.T) {
	t.Parallel()
	v := qemu.Boot(t, qemu.Scenario{
		OS:     talos.OS{Etcd: true},
		Helper: helper(t),
		Args:   []string{"talos.hostname.wait=2m"},
		Cloud: cloud.Config{
			Server:   cloud.Server{Hostname: server},
			Metadata: []cloud.Phase{{Until: 2 * time.Second, Answer: cloud.Unreachable()}},
		},
		Clock: report.First,
	})
	t.Log(v.Log())
	if names := v.Names(); len(names) != 1 || names[0] != server {
		t.Errorf("the node was called %q, not %s alone", names, server)
	}
	if v.Member() != server {
		t.Errorf("etcd's member is %q, not %s", v.Member(), server)
	}
}
