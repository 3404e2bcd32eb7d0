//go:build linux

package ship

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

func TestTheMakefileBuildsTheSame(t *testing.T) {
	// So that go test, which keeps results, knows what they depend on: it does not see what make reads.
	if _, err := os.Stat("../../../Makefile"); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("make"); err != nil {
		netns.Missing(t, "make is not installed; apt-get install make")
	}
	dry := exec.Command("make", "-n", "-C", "../../..", "build", "cross", "demo", "VERSION=v1")
	dry.Env = append(os.Environ(), "MAKEFLAGS=")
	output, err := dry.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	rest := string(output)
	for _, b := range []Build{
		{Command: "cmd/nametag", Output: "bin/nametag", Node: true},
		{Command: "cmd/nametagctl", Output: "bin/nametagctl"},
		{Command: "cmd/nametag", Output: "bin/$arch/nametag", Node: true},
		{Command: "cmd/nametagctl", Output: "bin/$arch/nametagctl"},
		{Command: "cmd/nametagctl", Output: "bin/nametagctl"},
	} {
		b.Link = "-X main.version=v1"
		flags := strings.ReplaceAll(strings.Join(b.flags(), " "), "-s -w "+b.Link, "'-s -w "+b.Link+"'") // as for a shell
		want := fmt.Sprintf("CGO_ENABLED=0 go build %s -o %s ./%s", flags, b.Output, b.Command)
		before, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("make does not run %s", want)
			continue
		}
		rest = before + after
	}
	if strings.Contains(rest, "go build") {
		t.Errorf("make builds otherwise than this package does:\n%s", rest)
	}
}
