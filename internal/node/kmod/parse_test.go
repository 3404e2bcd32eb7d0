//go:build linux

package kmod

import (
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		name, pattern, s string
		want             bool
	}{
		{"itself", "virtio:d1", "virtio:d1", true},
		{"not less", "virtio:d1", "virtio:d", false},
		{"not more", "virtio:d", "virtio:d1", false},
		{"nothing by nothing", "", "", true},
		{"nothing by stars", "**", "", true},
		{"a star in the middle", "pci:v00001AF4d*sv*sd*bc02sc*i*", nicPCI, true},
		{"another vendor", "pci:v00008086d*sv*sd*bc*sc*i*", nicPCI, false},
		{"a star across slashes", "of:N*T*Ca/b*", "of:Nx/yTzCa/b/c", true},
		{"a star that must give back", "*ab*abc", "abababc", true},
		{"a question mark", "v?", "v1", true},
		{"a question mark by nothing", "v?", "v", false},
		{"a set", "usb:v[0-9A-F]x", "usb:vAx", true},
		{"a set without it", "usb:v[0-9A-F]x", "usb:vax", false},
		{"a negated set", "v[!0-4]", "v5", true},
		{"a negated set with it", "v[^0-4]", "v3", false},
		{"a set with a bracket", "v[]]", "v]", true},
		{"a set with a dash at its end", "v[a-]", "v-", true},
		{"a set after a star", "input:*k*1[13]0,*", "input:b0k1,110,2", true},
		{"a bracket that does not close is itself", "v[0-9", "v[0-9", true},
		{"an empty set is none", "v[]", "v[]", true},
		{"a backslash takes the star its power", `v\*`, "v*", true},
		{"a backslash, and no star", `v\*`, "vx", false},
		{"a backslash at the end is itself", `v\`, `v\`, true},
		{"dash and underscore are alike", "crypto-sha_512", "crypto_sha-512", true},
		{"letters are not alike", "virtio:d00000001V*", nicVirtio, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := match(tt.pattern, tt.s); got != tt.want {
				t.Errorf("match(%q, %q) = %v", tt.pattern, tt.s, got)
			}
		})
	}
	// Must end: a matcher that backtracks over each star does not.
	if match(strings.Repeat("*a", 200)+"b", strings.Repeat("a", 4000)) {
		t.Error("matched")
	}
}

// plainly is match without sets, the slow and simple way.
func plainly(p, s string) bool {
	switch {
	case p == "":
		return s == ""
	case p[0] == '*':
		return plainly(p[1:], s) || s != "" && plainly(p, s[1:])
	case s == "":
		return false
	default:
		return (p[0] == '?' || dash(p[0]) == dash(s[0])) && plainly(p[1:], s[1:])
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("[!a-c]]", "d]")
	f.Add("*[", "[")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := match(pattern, s)
		if len(pattern) < 12 && len(s) < 12 && !strings.ContainsAny(pattern, `[\`) && got != plainly(pattern, s) {
			t.Fatalf("match(%q, %q) = %v", pattern, s, got)
		}
	})
}

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/net/virtio_net.ko": "virtio_net", "a/b/virtio-rng.ko.xz": "virtio_rng", "x.ko.zst": "x",
		"virtio-net": "virtio_net", "/lib/modules/x/8021q.ko.gz": "8021q", ".ko": ".ko", "": "", "dir/": "",
	} {
		if got := moduleName(file); got != want {
			t.Errorf("moduleName(%q) = %q, want %q", file, got, want)
		}
	}
}

func TestParams(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"none", "quiet ro", ""},
		{"of another module", "virtio_net2.a=1 xvirtio_net.a=1", ""},
		{"one with a value", "virtio_net.a=1", "a=1"},
		{"one without", "virtio_net.a", "a"},
		{"with a dash in the name", "virtio-net.a=1", "a=1"},
		{"several, in order", "virtio_net.a=1 quiet\tvirtio_net.b=2,3\n", "a=1 b=2,3"},
		{"a quoted value", `virtio_net.a="x y" ro`, `a="x y"`},
		{"quotes around the whole", `"virtio_net.a=x y" ro`, `a="x y"`},
		{"a quote that does not close", `virtio_net.a="x y`, `a="x y`},
		{"not behind the two dashes", "virtio_net.a=1 -- virtio_net.b=1", "a=1"},
		{"no parameter behind the point", "virtio_net. virtio_net.=1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := params(tt.line, "virtio_net"); got != tt.want {
				t.Errorf("params(%q) = %q, want %q", tt.line, got, tt.want)
			}
		})
	}
}

func FuzzParams(f *testing.F) {
	f.Add(`a.b=c "a.d=e f" a.g="h`)
	f.Fuzz(func(t *testing.T, line string) {
		if got := params(line, "a"); len(got) > len(line)+2 {
			t.Fatalf("params(%q) = %q", line, got)
		}
	})
}

// Whatever the files say, loading ends, panics nowhere, loads a module at most
// once, and each after what its line says it needs.
func FuzzModulesFiles(f *testing.F) {
	// Short ones: what is found is made shorter by a fuzzer, in time that grows with the square of its length.
	const net, virtio = "kernel/drivers/net/virtio_net.ko", "kernel/drivers/virtio/virtio.ko"
	f.Add("alias virtio:d*1v* virtio_net", net+": "+virtio+"\n"+virtio+":", "softdep virtio_net pre: virtio")
	f.Add("alias pci:* a", "a.ko: b.ko\nb.ko: a.ko", "softdep a pre: a")
	f.Add("alias pci:* a\nalias pci:* b", "a.ko:\n:\n: a.ko\nb.ko: /etc/passwd ../../b.ko", "softdep")
	f.Add("alias [ a\nalias", "\x00: \xff\n\n\r\n", "softdep a pre:")
	// One machine for all: to make its tree anew each time takes a hundred times as long as what is to be tried.
	m := newMachine(f)
	virtioTree(f, m.root)
	disk, err := openRoot(m.root, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = disk.close() })
	devices := []Device{{Bus: "pci", Modalias: diskPCI}, {Bus: "pci", Modalias: nicPCI}, {Bus: "virtio", Modalias: nicVirtio}}
	f.Fuzz(func(t *testing.T, alias, dep, softdep string) {
		if len(alias)+len(dep)+len(softdep) > 1<<16 {
			t.Skip()
		}
		m.kernel = &fakeKernel{fail: map[string]error{}, live: map[string]bool{}, onLoad: func(string) {}}
		c := catalogueOf(map[string]string{"modules.alias": alias, "modules.dep": dep, "modules.softdep": softdep})
		c.root, c.dir, c.done = disk, "/lib/modules/"+release, map[string]error{}
		s := &session{Loader: m.loader(), report: &Report{}, sources: []*source{{name: "memory", cat: c, opened: true}}}
		for range 2 {
			if err := s.serve(t.Context(), devices); err != nil {
				t.Fatal(err)
			}
		}
		loaded := m.kernel.take()
		for i, name := range loaded {
			if slices.Contains(loaded[:i], name) {
				t.Fatalf("%s was loaded twice: %q", name, loaded)
			}
		}
		if len(loaded) != len(s.report.Loaded) {
			t.Fatalf("the report %v is not what the kernel saw: %q", s.report.Loaded, loaded)
		}
	})
}

func FuzzResolve(f *testing.F) {
	f.Add(virtioDep, "virtio_net")
	f.Add("a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:", "a")
	f.Add("a.ko: b.ko\nb.ko: a.ko", "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		c := catalogueOf(map[string]string{"modules.dep": text})
		if err := c.resolve(t.Context(), []string{name}); err != nil {
			return
		}
		for _, d := range c.deps {
			for _, n := range d.needs {
				if _, known := c.deps[n]; !known {
					t.Fatalf("%q was not looked up", n)
				}
			}
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add(virtioAlias)
	f.Add("alias pci:v*d*sv*sd*bc0[23]sc* a\nalias * b\nalias [ c\nalias pci:* d e\nalias")
	f.Fuzz(func(t *testing.T, text string) {
		c := catalogueOf(map[string]string{"modules.alias": text})
		claims, err := c.claims(t.Context(), []Device{{Modalias: nicPCI}, {Modalias: nicVirtio}})
		if err != nil {
			return
		}
		for modalias, modules := range claims {
			if modalias != nicPCI && modalias != nicVirtio || len(modules) == 0 {
				t.Fatalf("%q claims %q", modules, modalias)
			}
			for i, m := range modules {
				if slices.Contains(modules[:i], m) {
					t.Fatalf("%q twice in %q", m, modules)
				}
			}
		}
	})
}

// catalogueOf has files in memory.
func catalogueOf(files map[string]string) *catalogue {
	return &catalogue{
		root: &root{},
		deps: map[string]dep{},
		open: func(name string) (io.ReadCloser, error) {
			if text, ok := files[name]; ok {
				return io.NopCloser(strings.NewReader(text)), nil
			}
			return nil, fs.ErrNotExist
		},
	}
}
