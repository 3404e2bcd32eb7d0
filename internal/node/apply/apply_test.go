//go:build linux

package apply

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/lasting"
	"github.com/nametag-boot/nametag/internal/node/memory"
	"github.com/nametag-boot/nametag/internal/node/record"
	"github.com/nametag-boot/nametag/internal/node/remedy"
	"github.com/nametag-boot/nametag/procfs"
)

// host is a system in two folders: what apply did to it.
type host struct {
	t        *testing.T
	config   Config
	kernel   string // its hostname
	asked    int
	enforced []procfs.Then

	mu   sync.Mutex
	said []Line
}

func (h *host) Say(l Line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, l)
}
func (h *host) Status(string) {}

// heard reports whether an event was said.
func (h *host) heard(event string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.said, func(l Line) bool { return l.Event == event })
}

// newHost is a server called web-1 whose kernel command line is line.
func newHost(t *testing.T, line string) *host {
	t.Helper()
	h := &host{t: t}
	parsed, mistake := procfs.ParseString(line)
	root := t.TempDir()
	h.config = Config{
		Root: lasting.Root(root), RunDir: t.TempDir(), Line: parsed, Mistake: mistake, Instance: "42", AtBoot: true, Reporter: h,
		Find: h.answers("web-1"),
		SetHostname: func(name string) (string, error) {
			if err := identity.ValidateHostname(name); err != nil { // as the real one
				return "", err
			}
			h.kernel = name
			return name, nil
		},
		UnsetHostname: func() error {
			h.kernel = "localhost"
			return nil
		},
		Enforce: func(_ context.Context, then procfs.Then, _ string) error {
			h.enforced = append(h.enforced, then)
			return errors.New("the kernel refused")
		},
	}
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

type find = func(context.Context, procfs.Policy, func(identity.Event)) (*identity.Identity, error)

func (h *host) answers(name string) find {
	return func(_ context.Context, _ procfs.Policy, observe func(identity.Event)) (*identity.Identity, error) {
		h.asked++
		observe(identity.Event{Kind: identity.EventNamed, Detail: name})
		return &identity.Identity{Hostname: name, InstanceID: "42", Source: "hetzner", Path: identity.PathInfo{Interface: "eth0", Method: "dhcp"}}, nil
	}
}

// silent never answers.
func (h *host) silent(ctx context.Context, _ procfs.Policy, _ func(identity.Event)) (*identity.Identity, error) {
	h.asked++
	<-ctx.Done()
	return nil, &identity.TimeoutError{Source: "hetzner", Cause: context.Cause(ctx)}
}

func (h *host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(string(h.config.Root), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) file() string {
	content, err := os.ReadFile(filepath.Join(string(h.config.Root), lasting.File))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

func (h *host) reboot(hostname string) {
	h.config.RunDir = h.t.TempDir()
	h.kernel = hostname
}

func (h *host) do(ctx context.Context) error { return h.config.Do(ctx) }

func TestTheNameIsSetRecordedKeptAndRemembered(t *testing.T) {
	for _, there := range []string{"", "localhost\n", "# nothing\n", "localhost.localdomain\n"} {
		h := newHost(t, "nametag.wait=1m")
		if there != "" {
			h.write(lasting.File, there)
		}
		for range 2 { // the second time changes nothing, and asks nobody
			if err := h.do(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r, err := record.Read(filepath.Join(h.config.RunDir, "nametag/identity.json"))
		if err != nil || r.Hostname != "web-1" || r.Path.Method != "dhcp" {
			t.Errorf("%q: record %+v, %v", there, r, err)
		}
		for _, path := range []string{memory.Path, memory.Early} {
			remembered, err := memory.Read(filepath.Join(string(h.config.Root), path))
			if err != nil || remembered.Hostname != "web-1" || remembered.InstanceID != "42" {
				t.Errorf("%q: memory %+v, %v", there, remembered, err)
			}
		}
		if h.kernel != "web-1" || h.file() != "web-1" || h.asked != 1 || !h.heard("applied") {
			t.Errorf("%q: kernel %q, file %q, asked %d times, %+v", there, h.kernel, h.file(), h.asked, h.said)
		}
	}
}

func TestWithoutARootTheRestIsLeftToALaterApply(t *testing.T) {
	h := newHost(t, "nametag.wait=1m")
	root := h.config.Root
	h.config.Root = ""
	if err := h.do(t.Context()); err != nil || h.kernel != "web-1" {
		t.Fatalf("%v, kernel %q", err, h.kernel)
	}
	if h.config.Root = root; h.file() != "" {
		t.Errorf("it wrote %q", h.file())
	}
	if err := h.do(t.Context()); err != nil || h.file() != "web-1" || h.asked != 1 {
		t.Errorf("%v, file %q, asked %d times", err, h.file(), h.asked)
	}
}

func TestAnExplicitNameEndsTheMatter(t *testing.T) {
	for _, tt := range []struct{ name, line, file string }{
		{"on the command line", "nametag.wait=1m talos.hostname=a", ""},
		{"for systemd", "nametag.wait=1m systemd.hostname=a", ""},
		{"for dracut", "nametag.wait=1m hostname=a", ""},
		{"in /etc/hostname", "nametag.wait=1m", "by-hand\n"},
		{"another platform", "nametag.wait=1m talos.platform=aws", ""},
		{"switched off", "nametag.wait=off", ""},
		{"not asked for", "quiet", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.line)
			if tt.file != "" {
				h.write(lasting.File, tt.file)
			}
			if err := h.do(t.Context()); err != nil {
				t.Fatal(err)
			}
			if h.asked != 0 || h.kernel != "" || h.file() != strings.TrimSpace(tt.file) || !h.heard("nothing-to-do") {
				t.Errorf("asked %d times, kernel %q, file %q, said %+v", h.asked, h.kernel, h.file(), h.said)
			}
		})
	}
}

func TestACredentialOfSystemdsIsAnExplicitName(t *testing.T) {
	credential := func(h *host, name, text string) {
		t.Helper()
		dir := filepath.Join(h.config.RunDir, "credentials/@system")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, root := range []bool{false, true} {
		h := newHost(t, "nametag.wait=1m")
		if !root {
			h.config.Root = ""
		}
		credential(h, "system.hostname", "by-hand\n")
		h.config.Hostname = "by-hand"
		if err := h.do(t.Context()); err != nil || h.asked != 0 || h.kernel != "" || !h.heard("nothing-to-do") {
			t.Errorf("with a root: %v: %v, asked %d times, kernel %q, said %+v", root, err, h.asked, h.kernel, h.said)
		}
	}
	for about, prepare := range map[string]func(h *host){
		"it names nobody": func(h *host) { credential(h, "system.hostname", "localhost\n") },
		"it is another":   func(h *host) { credential(h, "firstboot.hostname", "by-hand\n") },
		"systemd does not name the machine by it": func(h *host) {
			credential(h, "system.hostname", "by-hand\n")
			h.config.Hostname = "localhost"
		},
		"systemd goes by /etc/hostname, which we wrote, and the initramfs' by the credential": func(h *host) {
			if err := h.do(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.reboot("web-1")
			credential(h, "system.hostname", "by-hand\n")
			h.kernel, h.asked = "", 0
		},
	} {
		t.Run(about, func(t *testing.T) {
			h := newHost(t, "nametag.wait=1m")
			h.config.Hostname = "by-hand"
			prepare(h)
			if err := h.do(t.Context()); err != nil || h.asked != 1 || h.kernel != "web-1" {
				t.Errorf("%v, asked %d times, kernel %q, said %+v", err, h.asked, h.kernel, h.said)
			}
		})
	}
}

func TestACrashDumpIsNotHeldUp(t *testing.T) {
	h := newHost(t, "nametag.wait=1m")
	h.config.Capture = true
	if err := h.do(t.Context()); err != nil || h.asked != 0 || h.kernel != "" || !h.heard("nothing-to-do") {
		t.Errorf("%v, asked %d times, kernel %q, said %+v", err, h.asked, h.kernel, h.said)
	}
}

func TestAMistakeIsToldAndTheDefaultPolicyCounts(t *testing.T) {
	h := newHost(t, "nametag.wait=90")
	if err := h.do(t.Context()); err != nil || h.kernel != "web-1" || !h.heard("mistake") {
		t.Errorf("%v, kernel %q, said %+v", err, h.kernel, h.said)
	}
	if !slices.ContainsFunc(h.said, func(l Line) bool { return strings.HasSuffix(l.Text, remedy.Argument.See()) }) {
		t.Errorf("nobody is told where to look: %+v", h.said)
	}
}

func TestAnotherCloudIsNothingToDo(t *testing.T) {
	h := newHost(t, "nametag.wait=1m")
	h.config.Find = func(context.Context, procfs.Policy, func(identity.Event)) (*identity.Identity, error) {
		return nil, &identity.NotPresentError{Source: "hetzner"}
	}
	if err := h.do(t.Context()); err != nil || h.kernel != "" || !h.heard("nothing-to-do") {
		t.Errorf("%v, kernel %q, said %+v", err, h.kernel, h.said)
	}
}

func TestLaterBoots(t *testing.T) {
	boot := func(t *testing.T, line string) *host {
		h := newHost(t, line)
		if err := h.do(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.reboot("web-1")
		return h
	}
	t.Run("our own name in /etc/hostname is not an operator's", func(t *testing.T) {
		h := boot(t, "nametag.wait=1m")
		h.config.Find = h.answers("web-2") // renamed in the cloud
		if err := h.do(t.Context()); err != nil || h.kernel != "web-2" || h.file() != "web-2" || !h.heard("memory") {
			t.Errorf("%v, kernel %q, file %q, said %+v", err, h.kernel, h.file(), h.said)
		}
	})
	t.Run("an operator who sets another name wins", func(t *testing.T) {
		h := boot(t, "nametag.wait=1m")
		h.write(lasting.File, "by-hand\n")
		if err := h.do(t.Context()); err != nil || h.kernel != "web-1" || h.file() != "by-hand" || h.asked != 1 {
			t.Errorf("%v, kernel %q, file %q, asked %d", err, h.kernel, h.file(), h.asked)
		}
	})
	t.Run("a pinned name is an operator's, until it is unpinned", func(t *testing.T) {
		h := boot(t, "nametag.wait=1m")
		h.config.Find = h.answers("web-2")
		if name, err := h.config.Root.Pin(); err != nil || name != "web-1" {
			t.Fatal(name, err)
		}
		if err := h.do(t.Context()); err != nil || h.asked != 1 || h.file() != "web-1" {
			t.Errorf("%v, asked %d, file %q", err, h.asked, h.file())
		}
		if _, err := h.config.Root.Unpin(); err != nil {
			t.Fatal(err)
		}
		if err := h.do(t.Context()); err != nil || h.file() != "web-2" {
			t.Errorf("%v, file %q", err, h.file())
		}
	})
	t.Run("the service is down: the node goes on under the name that it had", func(t *testing.T) {
		h := boot(t, "nametag.wait=1m,known=10ms")
		h.config.Find = h.silent
		if err := h.do(t.Context()); err != nil || h.kernel != "web-1" || h.file() != "web-1" {
			t.Errorf("%v, kernel %q, file %q", err, h.kernel, h.file())
		}
		if r, _ := record.Read(filepath.Join(h.config.RunDir, "nametag/identity.json")); r.Source != memory.Source {
			t.Errorf("the record says %+v", r)
		}
	})
	t.Run("the same in an initramfs, where /var is not mounted yet", func(t *testing.T) {
		h := boot(t, "nametag.wait=1m,known=10ms")
		if err := os.RemoveAll(filepath.Join(string(h.config.Root), "var")); err != nil {
			t.Fatal(err)
		}
		h.config.Find = h.silent
		if err := h.do(t.Context()); err != nil || h.kernel != "web-1" || h.file() != "web-1" {
			t.Errorf("%v, kernel %q, file %q", err, h.kernel, h.file())
		}
	})
	t.Run("without an answer, and without patience for one, the node keeps its own", func(t *testing.T) {
		h := boot(t, "nametag.wait=30ms,known=off,then=continue")
		h.config.Find = h.silent
		if err := h.do(t.Context()); err == nil || h.kernel != "web-1" || h.file() != "web-1" {
			t.Errorf("%v, kernel %q, file %q", err, h.kernel, h.file())
		}
	})
	t.Run("a clone of another server's disk does not take that one's name", func(t *testing.T) {
		h := boot(t, "nametag.wait=30ms,known=10ms,then=continue")
		h.config.Instance, h.config.Find = "43", h.silent
		if err := h.do(t.Context()); err == nil {
			t.Errorf("it has a name: kernel %q, file %q", h.kernel, h.file())
		}
		if h.file() != "" || h.kernel != "localhost" || !h.heard("withdrawn") {
			t.Errorf("it goes on under another server's name: kernel %q, file %q", h.kernel, h.file())
		}
		h.config.Find = h.answers("web-3")
		if err := h.do(t.Context()); err != nil || h.kernel != "web-3" || h.file() != "web-3" {
			t.Errorf("%v, kernel %q, file %q", err, h.kernel, h.file())
		}
	})
}

func TestWithoutANameThePolicyIsCarriedOut(t *testing.T) {
	for _, tt := range []struct {
		then    procfs.Then
		managed bool
		enforce bool
	}{
		{procfs.Reboot, false, true},
		{procfs.PowerOff, false, true},
		{procfs.Continue, false, false},
		{procfs.Reboot, true, false}, // systemd does it, by the unit's FailureAction=
		{procfs.PowerOff, true, false},
		{procfs.Continue, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t, "nametag.wait=10s,then="+tt.then.String())
			h.config.Find, h.config.Managed = h.silent, tt.managed
			err := h.do(t.Context())
			var none *NoNameError
			var timeout *identity.TimeoutError
			if !errors.As(err, &none) || none.Then != tt.then || !errors.As(err, &timeout) {
				t.Errorf("%v, managed %v: %v", tt.then, tt.managed, err)
			}
			if (len(h.enforced) == 1) != tt.enforce || tt.enforce && h.enforced[0] != tt.then {
				t.Errorf("%v, managed %v: enforced %v", tt.then, tt.managed, h.enforced)
			}
			if h.kernel != "" || h.file() != "" || !h.heard("no-name") {
				t.Errorf("%v: kernel %q, file %q, said %+v", tt.then, h.kernel, h.file(), h.said)
			}
		})
	}
}

func TestANetworkThatCannotBeOpenedIsTriedAgainAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "nametag.wait=1m")
		right := h.config.Find
		tries := 0
		h.config.Find = func(ctx context.Context, p procfs.Policy, observe func(identity.Event)) (*identity.Identity, error) {
			if tries++; tries < 10 {
				return nil, errors.New("no netlink yet")
			}
			return right(ctx, p, observe)
		}
		if err := h.do(t.Context()); err != nil || h.kernel != "web-1" {
			t.Errorf("%v, kernel %q", err, h.kernel)
		}
		told := 0
		for _, l := range h.said {
			if l.Event == "failed" {
				told++
			}
		}
		if told != 1 {
			t.Errorf("it was told %d times", told)
		}
	})
}

func TestHaltStaysAndKeepsSayingWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "nametag.wait=10s,then=halt")
		h.config.Find, h.config.Managed = h.silent, true
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.do(ctx) }()
		time.Sleep(time.Hour)
		select {
		case err := <-ended:
			t.Fatalf("it went on: %v", err)
		default:
		}
		stop()
		<-ended
		said := 0
		for _, l := range h.said {
			if l.Event == "no-name" {
				said++
			}
		}
		if said < 50 {
			t.Errorf("in an hour it said why %d times", said)
		}
	})
}

func TestWhoStopsItGetsNoReboot(t *testing.T) {
	h := newHost(t, "nametag.wait=1m")
	h.config.Find = h.silent
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := h.do(ctx); err == nil || len(h.enforced) != 0 {
		t.Errorf("%v, enforced %v", err, h.enforced)
	}
}

func TestAShellIsNotABoot(t *testing.T) {
	h := newHost(t, "nametag.wait=10ms")
	h.config.Find, h.config.AtBoot = h.silent, false
	var timeout *identity.TimeoutError
	if err := h.do(t.Context()); !errors.As(err, &timeout) || len(h.enforced) != 0 {
		t.Errorf("%v, enforced %v", err, h.enforced)
	}
}
