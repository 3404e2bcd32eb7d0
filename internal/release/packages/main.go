// Command packages makes the packages of a release, for Debian, Fedora and its kin, Alpine and Arch, of what a release has
// built and of systems/*.yaml; and the system extension for systemd. It is a module of its own: what makes packages is heavy.
//
// The same input gives the same bytes: all times are SOURCE_DATE_EPOCH.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/apk"
	_ "github.com/goreleaser/nfpm/v2/arch"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

func main() {
	repo := flag.String("repo", ".", "the top of the repository")
	dist := flag.String("dist", "dist", "the folder of the built release; the packages go to packages/ in it")
	version := flag.String("version", "devel", "the release's version")
	flag.Parse()
	if err := run(*repo, *dist, *version); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

func run(repo, dist, version string) error {
	dist, err := filepath.Abs(dist)
	if err != nil {
		return err
	}
	if err := os.Chdir(repo); err != nil { // the lists name files from there
		return err
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	out := filepath.Join(dist, "packages")
	if err := os.MkdirAll(out, 0o755); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	work, err := os.MkdirTemp("", "nametag-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := packManual(filepath.Join(dist, "man"), filepath.Join(work, "man")); err != nil {
		return err
	}
	at := time.Unix(seconds, 0).UTC()
	for _, arch := range []string{"amd64", "arm64"} {
		if err := sysext(dist, out, arch, plainVersion(version), at); err != nil {
			return fmt.Errorf("the system extension for %s: %w", arch, err)
		}
	}
	for _, name := range []string{"nametag", "nametagctl"} {
		for _, arch := range []string{"amd64", "arm64"} {
			env := map[string]string{"DIST": dist, "WORK": work, "ARCH": arch, "VERSION": plainVersion(version)}
			for _, format := range []string{"deb", "rpm", "apk", "archlinux"} {
				if err := pack(name, format, out, env, at); err != nil {
					return fmt.Errorf("%s as %s for %s: %w", name, format, arch, err)
				}
			}
		}
	}
	return nil
}

// plainVersion is a version that every format takes: of v1.2.3-4-gabcdef it is 1.2.3+4.gabcdef; of what is none, 0.0.0.
func plainVersion(version string) string {
	m := regexp.MustCompile(`^v?(\d+\.\d+\.\d+)(?:-(.*))?$`).FindStringSubmatch(version)
	switch {
	case m == nil:
		return "0.0.0"
	case m[2] == "":
		return m[1]
	case regexp.MustCompile(`^\d+-g[0-9a-f]+`).MatchString(m[2]): // after the tag, not before it
		return m[1] + "+" + strings.ReplaceAll(m[2], "-", ".")
	}
	return m[1] + "-" + m[2]
}

// pack makes one package.
func pack(name, format, out string, env map[string]string, at time.Time) (err error) {
	list, err := os.Open(filepath.Join("systems", name+".yaml"))
	if err != nil {
		return err
	}
	defer list.Close()
	config, err := nfpm.ParseWithEnvMapping(list, func(key string) string { return env[key] })
	if err != nil {
		return err
	}
	info, err := config.Get(format)
	if err != nil {
		return err
	}
	info.MTime = at
	for _, c := range info.Contents {
		// nfpm expands the environment of the names itself, but from the process'.
		c.Source = os.Expand(c.Source, func(key string) string { return env[key] })
		if c.FileInfo == nil {
			continue
		}
		c.FileInfo.MTime = at
	}
	info = nfpm.WithDefaults(info)
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	for _, c := range info.Contents {
		if c.FileInfo != nil {
			c.FileInfo.MTime = at
		}
		if format == "rpm" && c.Type == files.TypeFile {
			c.Type = rpmType(c.Destination)
		}
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(out, packager.ConventionalFileName(info)))
	if err != nil {
		return err
	}
	return errors.Join(packager.Package(info, f), f.Close())
}

// rpmType marks what can be left out of an installation (rpm --excludedocs), and what never is.
func rpmType(path string) string {
	switch {
	case strings.HasPrefix(path, "/usr/share/man/"), strings.HasPrefix(path, "/usr/share/doc/"):
		return files.TypeRPMDoc
	case strings.HasPrefix(path, "/usr/share/licenses/"):
		return files.TypeRPMLicense
	}
	return files.TypeFile
}

// packManual compresses the man pages, the same way each time: Debian wants them so.
func packManual(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	pages, err := filepath.Glob(filepath.Join(from, "*.1"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		if err := errors.Join(err, w.Close()); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(page)+".gz"), b.Bytes(), 0o644); err != nil { //nolint:gosec // for everybody to read
			return err
		}
	}
	return nil
}
