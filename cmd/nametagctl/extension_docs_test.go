package main

import (
	"os"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/helper/helpertest"
	"github.com/nametag-boot/nametag/internal/installer/installertest"
	"github.com/nametag-boot/nametag/internal/oci"
)

// blocks is the fenced blocks of a document in a language.
func blocks(document, language string) []string {
	var found []string
	for _, part := range strings.Split(document, "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```")
		found = append(found, block+"\n")
	}
	return found
}

// Every command of ours that docs/extension.md has is run, in order, in one folder, with a registry of this process in
// the place of ghcr.io; and the profile that it shows is the one that is printed.
func TestTheCommandsOfTheDocumentationRun(t *testing.T) {
	b, err := os.ReadFile("../../docs/extension.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(b)
	helpers, host := helpertest.StandIn(t), serveRegistry(t)
	t.Chdir(t.TempDir())
	for tag, one := range map[string]oci.Artifact{
		"v1.9.1":  {Index: installertest.Index(t, installertest.Old)},
		"v1.12.7": {Index: installertest.Index(t, installertest.Merged)},
	} {
		if _, err := (oci.Registry{}).Push(t.Context(), one, host+"/siderolabs/installer:"+tag); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("_out", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := oci.WriteArchive(t.Context(), "_out/installer-amd64.tar", "ghcr.io/siderolabs/installer:v1.12.7", installertest.Merged(t, "amd64")); err != nil {
		t.Fatal(err)
	}

	ran, profile := 0, ""
	for _, block := range blocks(document, "console") {
		for line := range strings.Lines(block) {
			command, _, redirected := strings.Cut(strings.TrimSpace(line), " > ")
			words := strings.Fields(strings.ReplaceAll(command, "ghcr.io/", host+"/"))
			if words[0] != "nametagctl" {
				continue // the imager's
			}
			cmd := extensionCommand()
			if words[1] == "installer" {
				cmd = installerCommand()
			}
			if cmd.Name() != words[1] {
				t.Fatalf("%s: what command is that?", line)
			}
			out, _, err := execute(t, cmd, append(words[2:], "--helper", helpers)...)
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			if redirected {
				profile = out
			}
			ran++
		}
	}
	if ran != 8 {
		t.Errorf("%d commands were run", ran)
	}
	if yaml := blocks(document, "yaml"); len(yaml) != 2 || yaml[0] != profile {
		t.Errorf("the document shows\n%s\nprinted was\n%s", yaml, profile)
	}
}
