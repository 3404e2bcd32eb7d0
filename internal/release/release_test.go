package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAManPageSaysWhatTheHelpSays(t *testing.T) {
	page := manPage("nametag-resolve", "nametag resolve finds this server's name and prints it.\n\n.profile is not a request\nUsage:\n  nametag resolve [flags]\n")
	for _, want := range []string{
		".TH NAMETAG\\-RESOLVE 1",
		"nametag\\-resolve \\- finds this server's name and prints it\n",
		"\\&.profile is not a request\n",
		"  nametag resolve [flags]\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestTheCompletionKnowsTheFlagsOfTheHelp(t *testing.T) {
	got := flagsOf("Flags:\n  --wait VALUE  how long --not-this\n  --nic NIC     a card\n  --nic NIC     again\n")
	if strings.Join(got, " ") != "--nic --wait" {
		t.Errorf("the flags are %q", got)
	}
}

func TestTwoReleasesAreComparedByteForByte(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	put := func(dir, name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(a, "nametag", "one")
	put(b, "nametag", "one")
	if err := same(a, b); err != nil {
		t.Errorf("the same: %v", err)
	}
	put(b, "nametag", "two")
	if err := same(a, b); err == nil || !strings.Contains(err.Error(), "nametag differs") {
		t.Errorf("another content: %v", err)
	}
	put(b, "more", "")
	if err := same(a, b); err == nil || !strings.Contains(err.Error(), "different files") {
		t.Errorf("another file: %v", err)
	}
}

func TestTheChecksumsAreThoseOfSha256sum(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeSums(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	if want := "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  file\n"; string(got) != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}
