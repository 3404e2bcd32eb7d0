//go:build linux

package boot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/identitytest"
	"github.com/nametag-boot/nametag/internal/node/kmsg"
)

var updateDocs = flag.Bool("update-docs", false, "write what the documentation takes from the code")

// A treatment is what becomes of a machine whose service answers for an instance.
type treatment string

const (
	elsewhere  treatment = "nobody is asked: the boot goes on"
	unprovable treatment = "nobody is asked, since no answer could be proven: `then` at the bound"
	proven     treatment = "proven"
	taken      treatment = "taken"
	refused    treatment = "refused"
)

// The platforms, vendors and serial numbers that a machine may have. The first platform is none.
var (
	platforms = []string{"", platformHetzner, "metal"}
	vendors   = []struct{ name, about string }{
		{"Hetzner", "Hetzner"}, {"", "none is given"}, {"Amazon EC2", "known to be another cloud (Amazon EC2, Google, DigitalOcean, …)"}, {"QEMU", "any other (QEMU, Dell, …)"},
	}
)

// An answeringSource is Hetzner's, as far as it knows machines, and answers for one instance.
type answeringSource struct {
	identity.Source
	answers *identitytest.Source
}

func (s answeringSource) Fetch(ctx context.Context, via *earlynet.Path) (identity.Answer, error) {
	return s.answers.Fetch(ctx, via)
}

// treatmentOf carries the first process' decision, the worker's look at the machine and the resolver out, as they are at a boot, with an
// answer for that instance.
func treatmentOf(t *testing.T, platform, vendor, serial, proof, instance string) (f treatment) {
	t.Helper()
	line := "talos.hostname.wait=30s,id=" + proof
	if platform != "" {
		line += " talos.platform=" + platform
	}
	d, err := decide(line)
	if err != nil {
		t.Fatal(err)
	}
	if !d.wait {
		return elsewhere
	}
	p := mounts{t.TempDir()}
	dmi := filepath.Join(p.sys(), "class/dmi/id")
	if err := os.MkdirAll(dmi, 0o755); err != nil { //nolint:gosec // a test's own
		t.Fatal(err)
	}
	for name, value := range map[string]string{"sys_vendor": vendor, "product_serial": serial} {
		if value == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dmi, name), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := worker{request: request{Policy: d.policy, OnHetzner: d.onHetzner}, mounts: p, began: time.Now(), console: kmsg.New(new(bytes.Buffer), kmsg.Format{Unlimited: true})}
	if r := w.look(t.Context()); r != nil {
		if !r.BootOn {
			t.Fatal(r.Why)
		}
		return elsewhere
	}
	synctest.Test(t, func(t *testing.T) {
		source := answeringSource{w.resolver.Source, identitytest.New(identitytest.Answer("web-1", instance))}
		w.resolver.Source, w.resolver.Paths = source, identitytest.Paths("eth0/linklocal")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		id, err := w.resolver.Resolve(ctx)
		_, unproven := errors.AsType[*identity.UnprovenError](err)
		_, timeout := errors.AsType[*identity.TimeoutError](err)
		switch {
		case err == nil && id.IDProvenBy == identity.ProofDMI:
			f = proven
		case err == nil:
			f = taken
		case timeout:
			f = refused
		case unproven && len(source.answers.Calls()) == 0:
			f = unprovable
		default:
			t.Fatal(err)
		}
	})
	return f
}

// inWords is what becomes of a machine, with that proof asked for.
func inWords(t *testing.T, platform, vendor, serial, proof string) string {
	t.Helper()
	right, other := treatmentOf(t, platform, vendor, serial, proof, cmp.Or(serial, "42")), treatmentOf(t, platform, vendor, serial, proof, "43")
	switch [2]treatment{right, other} {
	case [2]treatment{proven, refused}:
		return "asked; the id must be the serial number"
	case [2]treatment{proven, taken}:
		return "asked; an id that is the serial number is proven, another one is taken unproven"
	case [2]treatment{taken, taken}:
		return "asked; any id is taken, unproven"
	}
	if right != other {
		t.Errorf("platform %q, vendor %q, serial %q, %s: the right id is %s, another one %s", platform, vendor, serial, proof, right, other)
	}
	return string(right)
}

// The page's table is what the code does.
func TestThePageListsWhatBecomesOfEachMachine(t *testing.T) {
	const page, begin, end = "../../../docs/boot.md", "<!-- machines -->\n", "<!-- end of machines -->"
	var rows strings.Builder
	rows.WriteString("| `talos.platform=` | vendor | serial number | with `id=proven` | with `id=unproven` |\n| --- | --- | --- | --- | --- |\n")
	for _, platform := range platforms {
		given := map[string]string{"": "missing", platformHetzner: "`" + platformHetzner + "`"}[platform]
		for _, vendor := range vendors {
			for _, serial := range []string{"42", ""} {
				there := map[string]string{"42": "there", "": "missing"}[serial]
				fmt.Fprintf(&rows, "| %s | %s | %s | %s | %s |\n", cmp.Or(given, "another platform"), vendor.about, there,
					inWords(t, platform, vendor.name, serial, "proven"), inWords(t, platform, vendor.name, serial, "unproven"))
			}
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	listed, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for it", page)
	}
	if listed == rows.String() {
		return
	}
	if !*updateDocs {
		t.Fatalf("%s lists\n%s\nand this is so:\n%s\nmake docs writes it", page, listed, &rows)
	}
	if err := os.WriteFile(page, []byte(before+begin+rows.String()+end+after), 0o644); err != nil { //nolint:gosec // a page
		t.Fatal(err)
	}
}
