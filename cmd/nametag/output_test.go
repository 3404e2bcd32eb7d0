//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

var updateDocs = flag.Bool("update-docs", false, "write what the documentation takes from the code")

// The page lists what is printed, and nothing else.
func TestThePageListsTheVariables(t *testing.T) {
	const page, begin, end = "../../docs/output.md", "<!-- variables -->\n", "<!-- end -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	listed, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for them", page)
	}
	var rows strings.Builder
	rows.WriteString("| variable | what |\n| --- | --- |\n") // with the heads: a comment inside would end the table
	for _, v := range variables {
		fmt.Fprintf(&rows, "| `%s` | %s |\n", v.name, v.about)
	}
	if listed == rows.String() {
		return
	}
	if !*updateDocs {
		t.Fatalf("%s lists\n%s\nand these are printed:\n%s\nmake docs writes it", page, listed, &rows)
	}
	if err := os.WriteFile(page, []byte(before+begin+rows.String()+end+after), 0o644); err != nil { //nolint:gosec // a page
		t.Fatal(err)
	}
}

// The page lists the members of an entry of the timeline, and nothing else.
func TestThePageListsTheMembersOfAnEvent(t *testing.T) {
	var event identity.Event
	filled := reflect.ValueOf(&event).Elem()
	for i := range filled.NumField() {
		switch f := filled.Field(i); f.Kind() {
		case reflect.Int, reflect.Int64:
			f.SetInt(2)
		case reflect.String:
			f.SetString("x")
		}
	}
	event.Kind, event.Presence, event.Err = identity.EventPlatform, identity.PresenceYes, errors.New("x")
	event.Path.Interface, event.Path.Method = "eth0", "dhcp"
	b, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]any{}
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(text), "\n## JSON\n")
	listed := map[string]bool{"at_ms": true, "kind": true} // these stand before the table
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(part, -1) {
		listed[m[1]] = true
	}
	for name := range members {
		if !listed[name] || !strings.Contains(part, "`"+name+"`") {
			t.Errorf("the page does not list %s", name)
		}
		delete(listed, name)
	}
	if len(listed) > 0 {
		t.Errorf("an event has no %v", listed)
	}
}

func TestEveryVariableIsPrintedOnceAndInOrder(t *testing.T) {
	var out bytes.Buffer
	if err := write(&out, "env", &identity.Identity{Hostname: "web-1.example.com", Domain: "example.com"}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(variables) {
		t.Fatalf("%d lines for %d variables:\n%s", len(lines), len(variables), &out)
	}
	for i, v := range variables {
		if !strings.HasPrefix(lines[i], v.name+"=") {
			t.Errorf("line %d is %q, not %s", i+1, lines[i], v.name)
		}
	}
}

// Whoever writes a flag expects an effect. Nothing is sent.
func TestResolveRefusesFlagsThatWouldHaveNoEffect(t *testing.T) {
	for _, args := range [][]string{
		{"--host-network", "--nic", "eth0"},
		{"--host-network", "--via", "dhcp"},
		{"--host-network", "--keep", "network"},
		{"--host-network", "--wait", "10s,nic=eth0"},
		{"--wait", "10s,then=reboot"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			lab := testvm.Start(t, cloud.Config{})
			if exit, stdout, stderr := said(t, append([]string{"resolve"}, args...)...); exit != exitUsage || stdout != "" || !strings.Contains(stderr, "leave") {
				t.Errorf("exit status %d, %q, %q", exit, stdout, stderr)
			}
			if asked := lab.Cloud.Requests(); len(asked) > 0 {
				t.Errorf("it asked: %v", asked)
			}
		})
	}
}
