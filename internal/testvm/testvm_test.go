package testvm

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

func sh(t testing.TB, lines ...string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", strings.Join(lines, "\n")).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", strings.Join(lines, "\n"), err, out)
	}
	return string(out)
}

func get(t testing.TB, url string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSmoke(t *testing.T) {
	Start(t, cloud.Config{Server: cloud.Server{Hostname: "smoke"}})
	sh(t, "ip addr add 169.254.0.1/16 dev eth0", "ip link set eth0 up")
	if got := get(t, "http://169.254.169.254/hetzner/v1/metadata/hostname"); got != "smoke" {
		t.Errorf("got %q", got)
	}
	t.Log(get(t, "http://169.254.169.254/hetzner/v1/metadata"))
	sh(t, "ip addr flush dev eth0", "ip link set eth0 down")
}
