//go:build linux

package talos_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/qemu/report"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// realTalos is the environment variable with the folder of a Talos that the user brings, as `make test-talos DIR=…` sets it.
const realTalos = "NAMETAG_TEST_TALOS"

// release is a Talos as files: what its releases have for PXE, and a machine configuration.
type release struct {
	kernel, archive string
	config          string // its text; empty: Talos stays in maintenance mode, and starts neither etcd nor kubelet
	args            []string
	memory          int
}

// Initramfs is what the folder has.
func (r release) Initramfs(context.Context, qemu.Deps) (qemu.Initramfs, error) {
	return qemu.Initramfs{Whole: true, Archive: r.archive, Kernel: r.kernel, Args: r.args}, nil
}

// releaseIn finds the files in a folder, by the names that they have in a release or in a build.
func releaseIn(dir string) (r release, err error) {
	find := func(names ...string) string {
		for _, name := range names {
			if path := filepath.Join(dir, name); err == nil {
				if _, serr := os.Stat(path); serr == nil {
					return path
				}
			}
		}
		err = errors.Join(err, &fs.PathError{Op: "find " + strings.Join(names, " or ") + " in", Path: dir, Err: fs.ErrNotExist})
		return ""
	}
	r.kernel = find("vmlinuz", "vmlinuz-amd64")
	r.archive = find("initramfs.xz", "initramfs-amd64.xz", "initramfs")
	if text, cerr := os.ReadFile(filepath.Join(dir, "config.yaml")); cerr == nil {
		r.config = string(text)
	}
	// Talos' own, as its boot loader has them (docs: "kernel parameters reference").
	r.args = strings.Fields("talos.platform=hcloud init_on_alloc=1 slab_nomerge pti=on consoleblank=0 printk.devkmsg=on selinux=1 module.sig_enforce=1 proc_mem.force_override=never")
	r.memory = 2048
	return r, err
}

// with is the release with nametag in its initramfs, put in as users do.
func (r release) with(t *testing.T) release {
	t.Helper()
	content, err := os.ReadFile(r.archive)
	if err != nil {
		t.Fatal(err)
	}
	var edited bytes.Buffer
	edit := withHelper(helpertest.Binary(t, string(qemu.AMD64)), initramfs.Options{})
	if err := edit(t.Context(), &edited, io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content)))); err != nil {
		t.Fatal(err)
	}
	r.archive = filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(r.archive, edited.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	r.args = append([]string{"talos.hostname.wait=10m"}, r.args...)
	return r
}

// lateName gives the machine configuration at once, and everything else half a minute after it was first asked for: the race.
func lateName(config string) cloud.Behaviour {
	var once sync.Once
	var began time.Time
	return cloud.Behaviour{Wrap: func(right http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			once.Do(func() { began = time.Now() })
			if strings.HasSuffix(r.URL.Path, "/userdata") && config != "" || time.Since(began) > 30*time.Second {
				right.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	}}
}

// setting is machined's line for each hostname that it sets, and healthy the one after which nothing is to be waited for.
var (
	setting = regexp.MustCompile(`setting hostname.*"hostname": "([^"]*)"(?:.*"domainname": "([^"]+)")?`)
	healthy = regexp.MustCompile(`service\[(etcd|kubelet)\].*Health check successful`)
)

// namesOf are the names that the kernel was given, in order, each once.
func namesOf(v *qemu.Verdict) []string {
	names := v.Names() // the stand-in's
	for _, l := range v.Console {
		if m := setting.FindStringSubmatch(l.Text); m != nil {
			names = append(names, strings.TrimSuffix(m[1]+"."+m[2], "."))
		}
	}
	return slices.Compact(names)
}

// boot boots the release on the fake cloud. It ends where a service is healthy, where a second name came, or by its time.
func (r release) boot(t *testing.T) *qemu.Verdict {
	t.Helper()
	v := qemu.Boot(t, qemu.Scenario{
		OS: r, Memory: r.memory, Full: true, KVM: os.Getenv("NAMETAG_TEST_KVM") != "", Timeout: 20 * time.Minute,
		Cloud: cloud.Config{
			Server:   cloud.Server{Hostname: server, UserData: r.config},
			Metadata: []cloud.Phase{{Until: 24 * time.Hour, Answer: lateName(r.config)}},
		},
		Until: func(v *qemu.Verdict) bool {
			_, settled := v.First(report.Settled)
			return settled || len(namesOf(v)) > 1 || slices.ContainsFunc(v.Console, func(l qemu.Line) bool { return healthy.MatchString(l.Text) })
		},
	})
	t.Logf("%v after %v: %q", v.Outcome, v.Took.Round(time.Second), namesOf(v))
	return v
}

// compare boots it without nametag, for the record, and with it: there must be one name, the server's.
func (r release) compare(t *testing.T) {
	t.Helper()
	t.Run("without nametag", func(t *testing.T) { r.boot(t) })
	t.Run("with nametag", func(t *testing.T) {
		if names := namesOf(r.with(t).boot(t)); !slices.Equal(names, []string{server}) {
			t.Errorf("the names were %q, not %q alone", names, server)
		}
	})
}

// A Talos that the user brings: what is a stand-in elsewhere is to be distrusted.
func TestARealTalos(t *testing.T) {
	dir := os.Getenv(realTalos)
	if dir == "" {
		return // nobody brought one; no skip, which in CI would say that something is missing
	}
	r, err := releaseIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.config == "" {
		t.Logf("%s has no config.yaml: Talos stays in maintenance mode, and invents no name", dir)
	}
	r.compare(t)
}

// The way itself, tried on the stand-in as if it were a release.
func TestAReleaseIsComparedWithAndWithoutNametag(t *testing.T) {
	t.Parallel()
	deps := qemu.Need(t, qemu.AMD64)
	made, err := talos.OS{}.Initramfs(t.Context(), deps)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := deps.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	// The stand-in's first process loads what Debian's kernel has as modules, and is told here what comes next.
	segment, err := deps.Initramfs(qemu.Files{qemu.FirstFile: {Data: []byte("/init"), Mode: 0o644}})
	if err != nil {
		t.Fatal(err)
	}
	var archive []byte
	for _, part := range []string{made.Archive, segment} {
		content, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		archive = append(archive, content...)
	}
	dir := t.TempDir()
	if _, err := releaseIn(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder passes for a release: %v", err)
	}
	if err := os.Symlink(kernel, filepath.Join(dir, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"initramfs.xz": archive, "config.yaml": []byte("version: v1alpha1\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := releaseIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.memory = 320
	r.args = append([]string{"rdinit=" + made.Run}, made.Args...)
	if without := namesOf(r.boot(t)); len(without) < 2 || without[0] == server {
		t.Errorf("without nametag the names were %q: that is no race", without)
	}
	if with := namesOf(r.with(t).boot(t)); !slices.Equal(with, []string{server}) {
		t.Errorf("with nametag the names were %q, not %q alone", with, server)
	}
}
