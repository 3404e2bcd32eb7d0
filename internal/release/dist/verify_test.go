package main

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	spdxjson "github.com/spdx/tools-golang/json"

	"github.com/nametag-boot/nametag/internal/pages"
)

// tool is a program that a user verifies with.
func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing; hack/deps installs it", name)
		}
		t.Skipf("SKIPPED: %s is missing; hack/deps installs it", name)
	}
}

// keys are a new pair, the private one encrypted.
func keys(t *testing.T, password string) (private, public string) {
	t.Helper()
	pub, priv, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := minisign.EncryptKey(password, priv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key"), filepath.Join(dir, "key.pub")
	if err := os.WriteFile(private, encrypted, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := pub.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public, append(text, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	return private, public
}

func TestAReleaseIsVerifiedAsAUserWould(t *testing.T) {
	tool(t, "minisign")
	dir := t.TempDir()
	if err := write(dir, "nametag-linux-amd64", "a binary"); err != nil {
		t.Fatal(err)
	}
	if err := writeProvenance(dir, "v1.2.3"); err != nil {
		t.Fatal(err)
	}
	if err := writeSums(dir); err != nil {
		t.Fatal(err)
	}
	private, public := keys(t, "secret")
	if err := sign(dir, private, "v1.2.3"); err == nil || !strings.Contains(err.Error(), passwordEnv) {
		t.Errorf("without a password: %v", err)
	}
	t.Setenv(passwordEnv, "wrong")
	if err := sign(dir, private, "v1.2.3"); err == nil {
		t.Error("signed with a wrong password")
	}
	t.Setenv(passwordEnv, "secret")
	if err := sign(dir, private, "v1.2.3"); err != nil {
		t.Fatal(err)
	}

	all, err := pages.Commands("../../..")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder // as docs/release.md has it
	for _, c := range all {
		if guard, ok := c.Guard(); ok && guard == pages.Release {
			script.WriteString(strings.ReplaceAll(c.Text, "nametag.pub", public) + "\n")
		}
	}
	if strings.Count(script.String(), "SHA256SUMS") < 2 || !strings.Contains(script.String(), public) {
		t.Fatalf("the page says\n%s", &script)
	}
	verify := func() error {
		sh := exec.Command("sh", "-ec", script.String())
		sh.Dir = dir
		said, err := sh.CombinedOutput()
		t.Logf("%s", said)
		return err
	}
	if err := verify(); err != nil {
		t.Error(err)
	}
	if err := write(dir, "nametag-linux-amd64", "another binary"); err != nil {
		t.Fatal(err)
	}
	if verify() == nil {
		t.Error("a changed file passes")
	}
	if err := writeSums(dir); err != nil { // the attacker does that too
		t.Fatal(err)
	}
	if verify() == nil {
		t.Error("changed checksums pass")
	}
}

func TestTheProvenanceNamesEveryFileByItsDigest(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir, "a", "content"); err != nil {
		t.Fatal(err)
	}
	if err := writeProvenance(dir, "v1.2.3"); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(filepath.Join(dir, provenanceFile))
	if err != nil {
		t.Fatal(err)
	}
	var statement struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []struct {
			Name   string
			Digest map[string]string
		}
		Predicate struct {
			BuildDefinition struct {
				BuildType          string
				ExternalParameters struct{ Version string }
			}
			RunDetails struct{ Builder struct{ ID string } }
		}
	}
	if err := json.Unmarshal(first, &statement); err != nil {
		t.Fatal(err)
	}
	sum, err := digest(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if statement.Type != "https://in-toto.io/Statement/v1" || statement.PredicateType != predicateType ||
		statement.Predicate.BuildDefinition.ExternalParameters.Version != "v1.2.3" || statement.Predicate.RunDetails.Builder.ID == "" ||
		len(statement.Subject) != 1 || statement.Subject[0].Name != "a" || statement.Subject[0].Digest["sha256"] != sum {
		t.Errorf("%s", first)
	}
	if err := os.Remove(filepath.Join(dir, provenanceFile)); err != nil {
		t.Fatal(err)
	}
	if err := writeProvenance(dir, "v1.2.3"); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(filepath.Join(dir, provenanceFile)); err != nil || string(again) != string(first) {
		t.Errorf("the second time it is another: %v\n%s", err, again)
	}
}

func TestTheSPDXDocumentIsOne(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "resolve")
	build := exec.Command("go", "build", "-o", binary, "./examples/resolve")
	build.Dir = "../../.."
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if err := writeSBOMs(binary, "v1.2.3", time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(binary + ".spdx.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	document, err := spdxjson.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := digest(binary)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(document.DocumentNamespace, sum) || document.CreationInfo.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("%s, made %s", document.DocumentNamespace, document.CreationInfo.Created)
	}
	ids, found := map[string]bool{}, false
	for _, p := range document.Packages {
		id := string(p.PackageSPDXIdentifier)
		if ids[id] || p.PackageVersion == "" || len(p.PackageExternalReferences) != 1 {
			t.Errorf("%+v", p)
		}
		ids[id] = true
		found = found || p.PackageName == "github.com/mdlayher/netlink"
	}
	if !found || len(document.Relationships) != len(document.Packages) {
		t.Errorf("%d packages, %d relationships", len(document.Packages), len(document.Relationships))
	}
}
