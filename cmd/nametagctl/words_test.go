//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/pages"
)

// each calls do for every command that is no other program's.
func each(root *cobra.Command, do func(*cobra.Command)) {
	for _, cmd := range root.Commands() {
		each(cmd, do)
		if !cmd.Hidden && !cmd.DisableFlagParsing {
			do(cmd)
		}
	}
}

// A value that is none, for each flag of each command that takes no free text: all end with the status of a command line
// that is not understood, and print nothing on standard output.
func TestABadValueOfAnyFlagIsACommandLineThatIsNotUnderstood(t *testing.T) {
	// What a flag of that name takes as it is: names of files and images, kernel arguments, names of servers.
	free := []string{"append", "archive", "cmdline", "helper", "helper-amd64", "helper-arm64", "hostname", "image", "initrd", "instance-id", "oci", "out", "pcap", "remove", "replace", "tarball", "tree"}
	bad := map[string]string{"push": "Not A Reference", "tag": "No Tag", "path": "/two words", "append": `a="b`, "replace": "-- x", "remove": `"`}
	arguments := map[string][]string{
		"nametagctl cmdline check": {"talos.hostname.wait=2m"}, "nametagctl initramfs add": {"image"}, "nametagctl initramfs inspect": {"image"},
		"nametagctl initramfs remove": {"image"}, "nametagctl installer": {"image.tar"}, "nametagctl uki edit": {"image"}, "nametagctl uki inspect": {"image"},
		"nametagctl lab": {"true"},
	}
	also := map[string][]string{
		"nametagctl extension": {"--oci", "x"}, "nametagctl installer": {"--archive", "x"}, "nametagctl initramfs add": {"--rdinit"},
		"nametagctl cmdline": {"--rdinit"},
	}
	walked := 0
	root := rootCommand()
	each(root, func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			value, told := bad[f.Name]
			switch {
			case f.Name == "help":
				return
			case f.Name == "path" && cmd.Name() == "add": // any name may stand in an image
				return
			case told:
			case slices.Contains(free, f.Name):
				return
			default:
				value = "nonsense"
			}
			walked++
			args := slices.Concat(strings.Fields(cmd.CommandPath())[1:], also[cmd.CommandPath()])
			if f.Value.Type() == "bool" {
				args = append(args, "--"+f.Name+"="+value)
			} else {
				args = append(args, "--"+f.Name, value)
			}
			args = append(args, arguments[cmd.CommandPath()]...)
			t.Run(strings.Join(args, " "), func(t *testing.T) {
				t.Chdir(t.TempDir())
				var stdout, stderr bytes.Buffer
				if got := cli.Execute(rootCommand(), args, &stdout, &stderr); got != cli.Usage || stdout.Len() > 0 || stderr.Len() == 0 {
					t.Errorf("exit status %d, %q, and on stderr %q", got, &stdout, &stderr)
				}
				for _, named := range pages.Flags(stderr.String()) {
					if cmd.Flags().Lookup(strings.TrimPrefix(named, "--")) == nil && named != "--help" {
						t.Errorf("it names %s, which it does not have: %s", named, &stderr)
					}
				}
				if left, _ := os.ReadDir("."); len(left) > 0 {
					t.Errorf("it leaves %v", left)
				}
			})
		})
	})
	if walked < 60 {
		t.Errorf("%d flags were walked", walked)
	}
}

// A flag that a message names is one of the command that says it: of uki.go and of uki_edit.go one of uki's, say. What
// several commands share may name any.
func TestEveryFlagThatAMessageNamesIsThere(t *testing.T) {
	// Other programs': nametag, xz, podman, skopeo, sbsign, talosctl, the imager, docker.
	others := []string{
		"--check", "--format", "--all", "--key", "--cert", "--nodes", "--platform", "--rm", "--system-extension-image", "--extra-kernel-arg", "--kubeconfig", "--talosconfig",
		"--help", "--version", "--ultra", "--long", "--nic", "--image",
	}
	known := map[string][]string{}
	each(rootCommand(), func(cmd *cobra.Command) {
		group := strings.Fields(cmd.CommandPath())[1]
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			known[group] = append(known[group], "--"+f.Name)
			known[""] = append(known[""], "--"+f.Name)
		})
	})
	messages, err := pages.Messages(".", "../../internal/image", "../../internal/cli", "../../internal/testvm/lab")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, m := range messages {
		group, _, _ := strings.Cut(strings.TrimSuffix(path.Base(m.File), ".go"), "_")
		dir := path.Dir(m.File)
		if known[group] == nil || group == "lab" || dir != "." && path.Base(dir) != "jobs" { // lab.go is demo's, too
			group = ""
		}
		for _, f := range m.Flags() {
			seen++
			if name := strings.TrimRight(f, "-"); !slices.Contains(known[group], name) && !slices.Contains(others, name) {
				t.Errorf("%s: a message names %s, which nametagctl %s does not have", m.File, f, group)
			}
		}
	}
	if seen < 50 {
		t.Errorf("%d flags were found", seen)
	}
}

// The members of what is printed for programs are named in one way, as in the record: small letters and _.
func TestMembersOfJSONAreNamedInOneWay(t *testing.T) {
	tag := regexp.MustCompile(`json:"([^",]+)`)
	seen := 0
	for _, dir := range []string{".", "../../internal/image", "../../internal/cli"} {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(filepath.Dir(name), "oci") {
				return err // the names of the OCI specification are its own
			}
			b, err := os.ReadFile(name)
			for _, m := range tag.FindAllSubmatch(b, -1) {
				if seen++; strings.ToLower(string(m[1])) != string(m[1]) {
					t.Errorf("%s: %s", name, m[1])
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 50 {
		t.Errorf("%d members were found", seen)
	}
}

func TestAProgramThatAsksForJSONIsToldOfAFailureInJSON(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		raised string
	}{
		{[]string{"initramfs", "inspect", "-o", "json", "no-such-file"}, cli.Failed, ""},
		{[]string{"uki", "edit", "--output", "json", "no-such-file", "--append", `a="`}, cli.Usage, ""},
		{[]string{"initramfs", "inspect", "-o", "json", "--max-entries", "1", "image"}, cli.Failed, "--max-entries"},
		{[]string{"extension", "-o", "json"}, cli.Usage, ""},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Chdir(t.TempDir())
			writeImage(t, "image")
			var stdout, stderr bytes.Buffer
			got := cli.Execute(rootCommand(), c.args, &stdout, &stderr)
			var printed struct{ Error *cli.Failure }
			if err := json.Unmarshal(stdout.Bytes(), &printed); err != nil || printed.Error == nil {
				t.Fatalf("%v in %q", err, &stdout)
			}
			if f := printed.Error; got != c.status || f.Status != c.status || f.Message == "" || f.RaisedBy != c.raised || !strings.Contains(stderr.String(), f.Message) {
				t.Errorf("exit status %d, %+v, and on stderr %q", got, f, &stderr)
			}
		})
	}
}

// -o FILE was how a file was named. It still is, where that can be no form, and a hint says how it is now.
func TestTheOldFormOfNamingAFileIsTakenWithAHint(t *testing.T) {
	image, helper, _ := workbench(t)
	out := filepath.Join(t.TempDir(), "out.xz")
	_, said, err := execute(t, initramfsCommand(), "add", image, "--helper", helper, "-o", out)
	if err != nil || !strings.Contains(said, "hint: ") || !strings.Contains(said, "--out "+out) {
		t.Errorf("%v: %s", err, said)
	}
	if _, err := os.Stat(out); err != nil {
		t.Error(err)
	}
	_, _, err = execute(t, initramfsCommand(), "add", image, "--helper", helper, "-o", "yaml")
	fails(t, err, cli.Usage, "--out")
}

func TestAnInitramfsComesAndGoesByPipes(t *testing.T) {
	image, helper, original := workbench(t)
	if _, _, err := execute(t, initramfsCommand(), "add", image, "--helper", helper, "--out", image+".want"); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(image + ".want")
	if err != nil {
		t.Fatal(err)
	}
	pipe := func(in []byte, args ...string) (out []byte, said string) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe", args...)
		tmp := t.TempDir()
		cmd.Env = append(os.Environ(), actAs+"=1", "TMPDIR="+tmp)
		cmd.Stdin = bytes.NewReader(in)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, &stderr)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("it leaves %v, %v", left, err)
		}
		return stdout.Bytes(), stderr.String()
	}
	added, said := pipe(original, "initramfs", "add", "-", "--helper", helper)
	if !bytes.Equal(added, want) || !strings.Contains(said, "nametag added") {
		t.Errorf("%d bytes, not %d: %s", len(added), len(want), said)
	}
	if again, _ := pipe(added, "initramfs", "add", "-", "--helper", helper, "--out", "-"); !bytes.Equal(again, want) {
		t.Error("added twice, it is another image")
	}
	if removed, _ := pipe(added, "initramfs", "remove", "-"); !bytes.Equal(removed, original) {
		t.Error("what is left is not what was there")
	}
	if shown, _ := pipe(added, "initramfs", "inspect", "-"); !strings.Contains(string(shown), "nametag as /init") {
		t.Errorf("%s", shown)
	}
}

// What an image says of itself, in each place where it is shown, is shown and not obeyed.
func TestAnImageCannotTalkToTheTerminal(t *testing.T) {
	const hostile = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202e"
	image := ukiFile(t, false,
		ukiSection{".osrel", "PRETTY_NAME=\"OS" + hostile + "\"\n"},
		ukiSection{".uname", "6.1" + hostile},
		ukiSection{".cmdline", "quiet" + hostile + "\nsignature       by the vendor"},
		ukiSection{".initrd", "x" + hostile},
		ukiSection{".linux", "kernel"},
		ukiSection{".profile", "ID=p" + hostile + "\nTITLE=t" + hostile},
		ukiSection{".cmdline", "second"},
	)
	for _, args := range [][]string{
		{"uki", "inspect", image},
		{"uki", "inspect", "-o", "json", image},
		{"uki", "edit", image, "--append", "x=y", "--out", image + ".out"},
		{"uki", "edit", image, "--nametag", "--out", image + ".out"},
		{"cmdline", "check", "talos.hostname.wait=2m" + hostile},
		{"uki", "inspect", "no" + hostile},
		{"initramfs", "inspect", "no" + hostile},
	} {
		var stdout, stderr bytes.Buffer
		_ = cli.Execute(rootCommand(), args, &stdout, &stderr)
		for _, out := range []string{stdout.String(), stderr.String()} {
			if i := strings.IndexFunc(out, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%q: the terminal obeys %q", args, out[i:min(len(out), i+20)])
			}
			if strings.Contains(out, "\nsignature       by the vendor") {
				t.Errorf("%q: a line of the image passes for one of ours:\n%s", args, out)
			}
		}
		if args[0] == "uki" && args[1] == "inspect" && args[2] == image && !strings.Contains(stdout.String(), `owned\u0007`) {
			t.Errorf("it is not shown:\n%s", &stdout)
		}
	}
}

// signedBy is a PKCS #7 message with the certificate of somebody who calls himself so.
func signedBy(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	explicit := func(der []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der}
	}
	signed, err := asn1.Marshal(struct {
		Version      int
		Digests      []asn1.RawValue `asn1:"set"`
		Content      struct{ Kind asn1.ObjectIdentifier }
		Certificates asn1.RawValue
	}{Version: 1, Content: struct{ Kind asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}}, Certificates: explicit(cert)})
	if err != nil {
		t.Fatal(err)
	}
	message, err := asn1.Marshal(struct {
		Kind    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, explicit(signed)})
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// Who signs an image chooses his name.
func TestTheNameOfASignerIsShownAndNotObeyed(t *testing.T) {
	const hostile = "Talos\x1b[2J\u009b31m\u202e\n  signature       none\rx"
	image := ukiFileWith(t, certificateTable(signedBy(t, hostile)), ukiSection{".cmdline", "quiet"}, ukiSection{".initrd", "x"}, ukiSection{".linux", "kernel"})
	for _, args := range [][]string{
		{"uki", "inspect", image},
		{"uki", "inspect", "-o", "json", image},
		{"uki", "edit", image, "--append", "x=y", "--out", image + ".out"},
		{"uki", "edit", image, "--append", "x=y", "--drop-signature", "--out", image + ".out"},
	} {
		var stdout, stderr bytes.Buffer
		_ = cli.Execute(rootCommand(), args, &stdout, &stderr)
		for _, out := range []string{stdout.String(), stderr.String()} {
			if i := strings.IndexFunc(out, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%q: the terminal obeys %q", args, out[i:min(len(out), i+20)])
			}
			if strings.Contains(out, "\n  signature       none") {
				t.Errorf("%q: a line of the signer's passes for one of ours:\n%s", args, out)
			}
		}
		if args[1] == "inspect" && !strings.Contains(stdout.String(), `Talos\u001b[2J`) {
			t.Errorf("%q: the signer is not shown:\n%s%s", args, &stdout, &stderr)
		}
	}
}

func TestCompletionsAreThereForTheShells(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		got := nametagctl(t, "completion", shell)
		if got.exit != 0 || !strings.Contains(got.stdout, "nametagctl") || got.stderr != "" {
			t.Errorf("%s: %d, %d bytes, %s", shell, got.exit, len(got.stdout), got.stderr)
		}
		if shell == "bash" {
			cmd := exec.Command("bash", "-n")
			cmd.Stdin = strings.NewReader(got.stdout)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("bash does not understand it: %v: %s", err, out)
			}
		}
	}
	if got := nametagctl(t, "-v"); got.exit != 0 || !strings.HasPrefix(got.stdout, "nametagctl ") {
		t.Errorf("-v: %d, %q, %s", got.exit, got.stdout, got.stderr)
	}
}
