//go:build linux

package record

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/pages"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
)

func example() *identity.Identity {
	return &identity.Identity{
		Hostname: "my-server.example.com", Domain: "example.com", InstanceID: "42", IDProvenBy: identity.ProofDMI,
		Region: "eu-central", AvailabilityZone: "hel1-dc2", PublicIPv4: netip.MustParseAddr("192.0.2.7"), Source: "hetzner",
		Path: identity.PathInfo{Interface: "eth0", Method: "linklocal", Address: netip.MustParseAddr("169.254.7.9")},
		PrivateNetworks: []identity.PrivateNetwork{{
			ID: 7, Name: "internal", IP: netip.MustParseAddr("10.0.0.2"), AliasIPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")},
			Network: netip.MustParsePrefix("10.0.0.0/16"), Subnet: netip.MustParsePrefix("10.0.0.0/24"),
			Gateway: netip.MustParseAddr("10.0.0.1"), MAC: "86:00:00:aa:bb:cc",
		}},
		Proven:   12500 * time.Microsecond,
		Timeline: []identity.Event{{At: 3 * time.Millisecond, Kind: identity.EventTrying}, {At: 12500 * time.Microsecond, Kind: identity.EventNamed}},
	}
}

// golden is schema 1 as users read it, with every member that there is: change it only by adding.
const golden = `{
  "schema": 1,
  "hostname": "my-server.example.com",
  "domain": "example.com",
  "instance_id": "42",
  "id_proven_by": "dmi",
  "region": "eu-central",
  "availability_zone": "hel1-dc2",
  "public_ipv4": "192.0.2.7",
  "private_networks": [
    {
      "id": 7,
      "name": "internal",
      "ip": "10.0.0.2",
      "alias_ips": [
        "10.0.0.9"
      ],
      "network": "10.0.0.0/16",
      "subnet": "10.0.0.0/24",
      "gateway": "10.0.0.1",
      "mac": "86:00:00:aa:bb:cc"
    }
  ],
  "source": "hetzner",
  "path": {
    "interface": "eth0",
    "method": "linklocal",
    "address": "169.254.7.9"
  },
  "short_name": "my-server",
  "elapsed_ms": 12.5,
  "boot_id": "b",
  "known_since": "2026-01-02T03:04:05Z"
}
`

// whole is the record that golden is.
func whole() Record {
	r := From(example())
	r.BootID, r.KnownSince = "b", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return r
}

func TestTheFileIsSchemaOneInBothDirections(t *testing.T) {
	name := filepath.Join(t.TempDir(), "identity.json")
	if err := whole().Write(name); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != golden {
		t.Errorf("written: %v\n%s", err, got)
	}
	if err := os.WriteFile(name, []byte(golden), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(name)
	if err != nil || !reflect.DeepEqual(got, whole()) {
		t.Errorf("read: %v, %+v\nnot %+v", err, got, whole())
	}
	// Nothing of an identity is lost on the way but how it was made.
	want := *example()
	want.Proven, want.Timeline = 0, nil
	if !reflect.DeepEqual(got.Identity, want) {
		t.Errorf("the identity: %+v\nnot %+v", got.Identity, want)
	}
}

// members are the names of all members of a document, those of members within as a.b.
func members(t *testing.T, document string) (all []string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		t.Fatalf("%v: %s", err, document)
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, below := range v {
				all = append(all, at+name)
				walk(at+name+".", below)
			}
		case []any:
			for _, below := range v {
				walk(at, below)
			}
		}
	}
	walk("", v)
	slices.Sort(all)
	return slices.Compact(all)
}

// What the page shows of the file is all that it has, but for a member that a known name alone has; and of what resolve prints the page
// says what is not in the file, and what is in the file alone.
func TestThePagesShowEveryMember(t *testing.T) {
	blocks, err := pages.Blocks("../../..", "docs/boot.md")
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(blocks, func(b pages.Block) bool { return b.Language == "json" })
	if at < 0 {
		t.Fatal("docs/boot.md shows no record")
	}
	shown := append(members(t, blocks[at].Text), "known_since")
	slices.Sort(shown)
	if is := members(t, golden); !slices.Equal(shown, is) {
		t.Errorf("docs/boot.md shows\n%q\nand the record has\n%q", shown, is)
	}
	page, err := os.ReadFile("../../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	inFile, err := json.Marshal(whole())
	if err != nil {
		t.Fatal(err)
	}
	printed, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	says := func(name string) bool { return strings.Contains(string(page), "`"+name+"`") }
	for _, name := range members(t, string(printed)) {
		if !slices.Contains(members(t, string(inFile)), name) && !strings.Contains(name, ".") && !says(name) {
			t.Errorf("docs/output.md does not say that resolve prints %s", name)
		}
	}
	for _, name := range members(t, string(inFile)) {
		if !slices.Contains(members(t, string(printed)), name) && name != "known_since" && !says(name) {
			t.Errorf("docs/output.md does not say that resolve does not print %s", name)
		}
	}
}

// A file is a JSON object, whose members have no order: what an earlier nametag wrote reads the same.
func TestTheOrderOfTheMembersSaysNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "identity.json")
	short := "  \"short_name\": \"my-server\",\n"
	other := strings.Replace(strings.Replace(golden, short, "", 1), "  \"domain\"", short+"  \"domain\"", 1)
	if err := os.WriteFile(name, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(name); err != nil || !reflect.DeepEqual(got, whole()) || other == golden {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestWrite(t *testing.T) {
	t.Run("what is not known is left out, and the boot id is the kernel's", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "identity.json")
		if err := From(&identity.Identity{Hostname: "a", Source: "s", Path: identity.PathInfo{Method: "host"}}).Write(name); err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(name)
		var members map[string]any
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		for _, must := range []string{"schema", "hostname", "short_name", "source", "path", "elapsed_ms", "boot_id"} {
			if _, ok := members[must]; !ok {
				t.Errorf("%s is missing", must)
			}
			delete(members, must)
		}
		if len(members) > 0 {
			t.Errorf("unknown things are told: %v", members)
		}
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if r, _ := Read(name); r.BootID != strings.TrimSpace(string(id)) {
			t.Errorf("boot id %q", r.BootID)
		}
	})
	t.Run("file and folder are for everyone to read, whatever the umask", func(t *testing.T) {
		old := syscall.Umask(0o077)
		defer syscall.Umask(old)
		name := filepath.Join(t.TempDir(), "nametag", "identity.json")
		if err := From(example()).Write(name); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]os.FileMode{name: 0o644, filepath.Dir(name): 0o755 | os.ModeDir} {
			if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
				t.Errorf("%s: %v, %v", path, fi.Mode(), err)
			}
		}
	})
	t.Run("a reader never sees half a record", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "identity.json")
		if err := From(example()).Write(name); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 300 {
				if err := From(example()).Write(name); err != nil {
					t.Error(err)
				}
			}
		})
		for range 300 {
			if _, err := Read(name); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
	})
	t.Run("what a killed writer left is no obstacle, nor is a link put in its place followed", func(t *testing.T) {
		dir := t.TempDir()
		victim := filepath.Join(dir, "victim")
		if err := os.WriteFile(victim, []byte("keep"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, filepath.Join(dir, ".identity.json.new")); err != nil {
			t.Fatal(err)
		}
		if err := From(example()).Write(filepath.Join(dir, "identity.json")); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(victim); string(got) != "keep" {
			t.Errorf("the link was followed: %q", got)
		}
		if left, _ := os.ReadDir(dir); len(left) != 2 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("where it cannot be written, nothing is left and the error says where", func(t *testing.T) {
		dir := t.TempDir()
		name := filepath.Join(dir, "identity.json")
		if err := os.Mkdir(name, 0o755); err != nil { // a rename onto a folder fails
			t.Fatal(err)
		}
		err := From(example()).Write(name)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v", err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "identity.json")
	if _, err := Read(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, text := range []string{"", "{", `{"hostname":"a"}`, `{"schema":2,"hostname":"a"}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Read(name); err == nil {
			t.Errorf("%q was read as %+v", text, r)
		}
	}
}

// TestMountRun mounts in a namespace of its own: it runs itself again there.
func TestMountRun(t *testing.T) {
	if !helpertest.WithMounts(t) {
		return
	}
	run := filepath.Join(t.TempDir(), "run")
	for _, want := range []bool{true, false} { // once, and then it is there
		if mounted, err := MountRun(run); err != nil || mounted != want {
			t.Fatalf("mounted %v, want %v: %v", mounted, want, err)
		}
	}
	if err := From(example()).Write(filepath.Join(run, "nametag", "identity.json")); err != nil {
		t.Error(err)
	}
	if err := syscall.Unmount(run, 0); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(run); len(left) != 0 {
		t.Errorf("written below the mount, not on it: %v", left)
	}
	if _, err := MountRun(filepath.Join(run, "a", "b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no parent: %v", err)
	}
}
