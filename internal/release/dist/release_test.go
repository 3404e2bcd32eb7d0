package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestAManPageSaysWhatTheHelpSays(t *testing.T) {
	page := manPage("nametag-resolve", "nametag resolve finds this server's name and prints it.\n\n.profile is not a request\nUsage:\n  nametag resolve [flags]\n")
	for _, want := range []string{
		".TH NAMETAG\\-RESOLVE 1",
		"nametag\\-resolve \\- finds this server's name and prints it\n",
		"\\&.profile is not a request\n",
		"  nametag resolve [flags]\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestTwoReleasesAreComparedByteForByte(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	put := func(dir, name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(a, "nametag", "one")
	put(b, "nametag", "one")
	if err := same(a, b); err != nil {
		t.Errorf("the same: %v", err)
	}
	put(b, "nametag", "two")
	if err := same(a, b); err == nil || !strings.Contains(err.Error(), "nametag differs") {
		t.Errorf("another content: %v", err)
	}
	put(b, "more", "")
	if err := same(a, b); err == nil || !strings.Contains(err.Error(), "different files") {
		t.Errorf("another file: %v", err)
	}
}

func TestTheChecksumsAreThoseOfSha256sum(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeSums(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	if want := "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  file\n"; string(got) != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}

// The test binary is as good as any: it has build information.
func TestTheSBOMNamesTheBinaryByVersionAndChecksum(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "nametag-linux-amd64")
	if err := os.WriteFile(binary, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeSBOMs(binary, "v1.2.3", time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(binary + ".cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat, SpecVersion string
		Version                int
		Metadata               struct {
			Component struct {
				Type, Name, Version, PURL string
				Hashes                    []struct{ Alg, Content string }
			}
		}
		Components []struct{ Type, Name, Version, PURL string }
	}
	if err := json.Unmarshal(b, &bom); err != nil {
		t.Fatal(err)
	}
	c := bom.Metadata.Component
	if bom.BOMFormat != "CycloneDX" || bom.SpecVersion == "" || bom.Version != 1 || c.Type != "application" || c.Version != "v1.2.3" || !strings.Contains(c.PURL, "@v1.2.3") {
		t.Errorf("%s", b)
	}
	if len(c.Hashes) != 1 || c.Hashes[0].Alg != "SHA-256" || c.Hashes[0].Content != fmt.Sprintf("%x", sha256.Sum256(content)) {
		t.Errorf("the checksum is %+v", c.Hashes)
	}
	for _, d := range bom.Components {
		if d.Type != "library" || d.Name == "" || d.Version == "" || d.PURL == "" {
			t.Errorf("a component is %+v", d)
		}
	}
}

// What a module is replaced by is what is linked in, and what the licences and the SBOM are of.
func TestAReplacedModuleIsCalledWhatItIs(t *testing.T) {
	fork := &debug.Module{Path: "example.com/fork", Version: "v2.0.0"}
	for _, c := range []struct {
		dep    *debug.Module
		want   string
		theirs bool
	}{
		{&debug.Module{Path: "example.com/a", Version: "v1.0.0"}, "example.com/a", true},
		{&debug.Module{Path: "example.com/a", Version: "v1.0.0", Replace: fork}, "example.com/fork", true},
		{&debug.Module{Path: "example.com/ours", Version: "v0.0.0", Replace: &debug.Module{Path: ".."}}, "..", false},
	} {
		if got, theirs := linked(c.dep); got.Path != c.want || theirs != c.theirs {
			t.Errorf("%+v: %s, %t", c.dep, got.Path, theirs)
		}
	}
}

func TestTheAuditorIsOfItsOwnModule(t *testing.T) {
	if moduleOf("dist/nametag-audit-linux-arm64") != "cluster" || moduleOf("dist/nametag-linux-amd64") != "." || moduleOf("dist/nametagctl-linux-amd64") != "." {
		t.Error("a binary's modules are looked for in another's list")
	}
}

func TestEveryLicenceIsInTheRelease(t *testing.T) {
	t.Chdir("../../..") // as the release runs
	dir := t.TempDir()
	binary := filepath.Join(dir, "resolve")
	if said, err := exec.Command("go", "build", "-o", binary, "./examples/resolve").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if err := writeLicences(dir, []string{binary}); err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(filepath.Join(dir, licenceFile))
	if err != nil || !strings.Contains(string(ours), "Apache License") {
		t.Errorf("ours: %v", err)
	}
	theirs, err := os.ReadFile(filepath.Join(dir, thirdPartyFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nGo go1.", "\ngithub.com/mdlayher/netlink@v", "The Go Authors", "\ngithub.com/hetznercloud/hcloud-go/v2@v"} {
		if !strings.Contains(string(theirs), want) {
			t.Errorf("no %q", want)
		}
	}
	if _, err := licencesIn(t.TempDir()); err == nil {
		t.Error("a folder without a licence passes")
	}
}
