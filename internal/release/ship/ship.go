// Package ship knows how the commands that ship are built: static, stripped and free of paths. What releases, measures
// or tests one builds it by this package. The Makefile does without, so that it stays what people read; a test compares
// the two.
package ship

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

const (
	// nodeTags are the build tags of what runs on a node. The metadata service speaks HTTP/1.1: a node needs no HTTP/2.
	nodeTags = "nethttpomithttp2"

	module = "github.com/nametag-boot/nametag/"
)

// A Build is one command, built for Linux. Without a Top its methods work in any folder of the module.
type Build struct {
	Command string   // its folder in the module: cmd/nametag
	Top     string   // the top of the checkout; "": the folder that this process is in
	Module  string   // the module's folder in the checkout: cluster; that at the top: ""
	Arch    string   // the processor, a GOARCH
	Output  string   // the file
	Node    bool     // as what runs on a node
	Tags    string   // further build tags; none: ""
	Link    string   // flags for the linker, beside those that strip
	Env     []string // on top of this process' own
}

// flags are those that the Makefile has as well.
func (b Build) flags() []string {
	link := "-s -w"
	if b.Link != "" {
		link += " " + b.Link
	}
	// Without the state of the checkout: that may be another user's, where git refuses to look.
	flags := []string{"-buildvcs=false", "-trimpath", "-ldflags", link}
	if tags := b.tags(); tags != "" {
		flags = append(flags, "-tags", tags)
	}
	return flags
}

func (b Build) tags() string {
	switch {
	case !b.Node:
		return b.Tags
	case b.Tags == "":
		return nodeTags
	default:
		return nodeTags + "," + b.Tags
	}
}

// Run builds it. An output that is up to date stays, with a new time.
func (b Build) Run(ctx context.Context) error {
	output, err := filepath.Abs(b.Output)
	if err != nil {
		return err
	}
	_, err = b.run(ctx, append([]string{"build", "-o", output}, b.flags()...)...)
	return err
}

// Sources are the files of this checkout that the command is made of, their folders among them.
func (b Build) Sources(ctx context.Context) ([]string, error) {
	const format = `{{with .Module}}{{if or .Main .Replace}}{{.GoMod}}
{{$.Dir}}{{range $.GoFiles}}
{{$.Dir}}/{{.}}{{end}}{{range $.EmbedFiles}}
{{$.Dir}}/{{.}}{{end}}{{end}}{{end}}`
	listed, err := b.run(ctx, "list", "-deps", "-tags", b.tags(), "-f", format)
	return strings.Fields(listed), err
}

func (b Build) run(ctx context.Context, args ...string) (string, error) {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", append(args, module+path.Join(b.Module, b.Command))...)
	cmd.Dir = filepath.Join(b.Top, b.Module)
	cmd.Stderr = &said
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOWORK=off")
	cmd.Env = append(cmd.Env, b.Env...)
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s of %s for %s: %w\n%s", args[0], b.Command, b.Arch, err, bytes.TrimSpace(said.Bytes()))
	}
	return string(output), nil
}
