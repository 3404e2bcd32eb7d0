//go:build linux

package main

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The pages name commands of hcloud, talosctl and hcloud-upload-image, which cost money or speak to a node: no test runs
// them. What they know stands in a table, of the commands that the pages name, made of their own manuals:
//
//	git clone --depth 1 --branch v1.67.0 https://github.com/hetznercloud/cli CLIENTS/cli
//	git clone --depth 1 --branch v1.12.7 https://github.com/siderolabs/talos CLIENTS/talos
//	git clone --depth 1 --branch v1.5.0 https://github.com/apricote/hcloud-upload-image CLIENTS/hcloud-upload-image
//	git clone --depth 1 --branch v1.7.2 https://github.com/hetznercloud/packer-plugin-hcloud CLIENTS/packer-plugin-hcloud
//	go test ./cmd/nametagctl -run '^TestTheCommandsOfOthersAreThere$' -clients CLIENTS
var clients = flag.String("clients", "", "make the table of other clients' commands of the manuals in this folder")

const clientTable = "testdata/clients.txt"

// manuals are where the clients have theirs. All are written by the same library, from the commands themselves.
var manuals = []string{"cli/docs/reference/manual", "talos/website/content/v1.12/reference", "hcloud-upload-image/docs/reference/cli"}

// packerSource stands in the table for what a source of Packer's plugin may say.
const packerSource = "packer source hcloud"

// A client command is its flags, by its name: "hcloud server create".
type clientCommands map[string][]string

// readManuals reads every command of every client.
func readManuals(t *testing.T, dir string) clientCommands {
	t.Helper()
	all := clientCommands{}
	title, option := regexp.MustCompile(`^## ((?:hcloud|talosctl)[a-z0-9 -]*)$`), regexp.MustCompile(`^ {2,6}(?:(-[a-zA-Z]), )?(--[a-z0-9-]+)`)
	for _, manual := range manuals {
		err := filepath.WalkDir(filepath.Join(dir, manual), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".md") {
				return err
			}
			text, err := os.ReadFile(path)
			command := ""
			for line := range strings.Lines(string(text)) {
				line = strings.TrimRight(line, "\n")
				if m := title.FindStringSubmatch(line); m != nil {
					command = m[1]
					all[command] = nil
				} else if m := option.FindStringSubmatch(line); m != nil && command != "" {
					all[command] = append(all[command], slices.DeleteFunc(m[1:], func(f string) bool { return f == "" })...)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	spec, err := os.ReadFile(filepath.Join(dir, "packer-plugin-hcloud/builder/hcloud/config.hcl2spec.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?:AttrSpec\{Name: |BlockSpec\{TypeName: )"([a-z0-9_]+)"`).FindAllStringSubmatch(string(spec), -1) {
		all[packerSource] = append(all[packerSource], m[1])
	}
	return all
}

// A use is one command of a client's that a page names.
type use struct{ where, line string }

var (
	inShell  = regexp.MustCompile(`(?:^|\$\(|[|&;] |until )((?:hcloud-upload-image|hcloud|talosctl) [^|;&)#\n]*)`)
	inText   = regexp.MustCompile("`((?:hcloud-upload-image|hcloud|talosctl) [a-z][^`]*)`")
	inSource = regexp.MustCompile(`(?ms)^source "hcloud" .*?^\}`)
	setting  = regexp.MustCompile(`(?m)^  ([a-z_]+) +=`)
)

// uses are the commands of the clients on all pages, and the settings of Packer's sources.
func uses(t *testing.T) (commands, settings []use) {
	t.Helper()
	for _, page := range allPages(t) {
		for _, b := range blocksOf(t, page) {
			for _, c := range b.Commands() {
				for _, m := range inShell.FindAllStringSubmatch(strings.ReplaceAll(c.Text, "\\\n", " "), -1) {
					commands = append(commands, use{fmt.Sprintf("%s:%d", page, c.Line), m[1]})
				}
			}
			for _, source := range inSource.FindAllString(b.Text, -1) {
				for _, m := range setting.FindAllStringSubmatch(source, -1) {
					settings = append(settings, use{fmt.Sprintf("%s:%d", page, b.Line), m[1]})
				}
			}
		}
		text, err := os.ReadFile(filepath.Join(top, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inText.FindAllStringSubmatch(string(text), -1) {
			commands = append(commands, use{page, m[1]})
		}
	}
	return commands, settings
}

// of finds the command that a line names: the longest whose words stand in it side by side. Flags may stand before it.
func (all clientCommands) of(line string) (name string, ok bool) {
	client, rest, _ := strings.Cut(line, " ")
	words := " " + strings.Join(strings.Fields(rest), " ") + " "
	for command := range all {
		sub, ours := strings.CutPrefix(command, client+" ")
		if ours && strings.Contains(words, " "+sub+" ") && len(command) > len(name) {
			name = command
		}
	}
	return name, name != ""
}

func TestTheCommandsOfOthersAreThere(t *testing.T) {
	commands, settings := uses(t)
	if *clients != "" {
		writeClientTable(t, readManuals(t, *clients), commands)
	}
	text, err := os.ReadFile(clientTable)
	if err != nil {
		t.Fatal(err)
	}
	table := clientCommands{}
	for line := range strings.Lines(string(text)) {
		if name, flags, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			table[name] = strings.Fields(flags)
		}
	}
	for _, u := range commands {
		name, ok := table.of(u.line)
		if !ok {
			t.Errorf("%s: %q is no command, or none of the table: make it anew as this test's source says", u.where, u.line)
			continue
		}
		for _, word := range strings.Fields(u.line) {
			flag, _, _ := strings.Cut(word, "=")
			if strings.HasPrefix(flag, "-") && flag != "-" && !slices.Contains(table[name], flag) {
				t.Errorf("%s: %s has no %s", u.where, name, flag)
			}
		}
	}
	for _, u := range settings {
		if !slices.Contains(table[packerSource], u.line) {
			t.Errorf("%s: a source of Packer's has no %s", u.where, u.line)
		}
	}
	if len(commands) < 25 || len(settings) < 5 {
		t.Errorf("only %d commands and %d settings were found", len(commands), len(settings))
	}
}

// writeClientTable writes what the pages name, and no more.
func writeClientTable(t *testing.T, all clientCommands, commands []use) {
	t.Helper()
	named := map[string]bool{packerSource: true}
	for _, u := range commands {
		if name, ok := all.of(u.line); ok {
			named[name] = true
		}
	}
	var b strings.Builder
	b.WriteString("# The flags of the commands that the pages name, by the manuals of hcloud v1.67.0, talosctl v1.12.7, hcloud-upload-image v1.5.0\n")
	b.WriteString("# and packer-plugin-hcloud v1.7.2. clients_test.go says how it is made.\n")
	for _, name := range slices.Sorted(maps.Keys(named)) {
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(slices.Compact(slices.Sorted(slices.Values(all[name]))), " "))
	}
	if err := os.MkdirAll(filepath.Dir(clientTable), 0o755); err != nil { //nolint:gosec // for everybody to read
		t.Fatal(err)
	}
	if err := os.WriteFile(clientTable, []byte(b.String()), 0o644); err != nil { //nolint:gosec // for everybody to read
		t.Fatal(err)
	}
}
