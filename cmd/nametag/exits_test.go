//go:build linux

package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/node/lasting"
	"github.com/nametag-boot/nametag/internal/node/record"
	"github.com/nametag-boot/nametag/internal/pages"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

var (
	// In a help there may be two a line.
	exitInHelp = regexp.MustCompile(`(?:^|  )([0-9])  (\S+(?: \S+)*)`)
	exitInPage = regexp.MustCompile(`(?m)^\| ([0-9]) \| (.*) \|$`)
)

// exitsOf reads the exit statuses that a help tells, with their meaning.
func exitsOf(t *testing.T, help string) map[int]string {
	t.Helper()
	_, rest, found := strings.Cut(help, "\nExit status:\n")
	if !found {
		t.Fatalf("a help tells no exit status:\n%s", help)
	}
	block, _, _ := strings.Cut(rest, "\n\n")
	all := map[int]string{}
	for line := range strings.Lines(block) {
		for _, m := range exitInHelp.FindAllStringSubmatch(strings.TrimRight(line, "\n"), -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil || all[n] != "" {
				t.Errorf("%d is told twice: %v", n, err)
			}
			all[n] = m[2]
		}
	}
	return all
}

// The exit statuses are told where a user looks, each with one meaning, and no other is told.
func TestTheExitStatusesAreThoseOfTheHelpsAndTheReadme(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var known []int
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "exit") && len(v.Values) == 1 {
			if l, ok := v.Values[0].(*ast.BasicLit); ok && l.Kind == token.INT {
				code, err := strconv.Atoi(l.Value)
				if err != nil {
					t.Fatal(err)
				}
				known = append(known, code)
			}
		}
		return true
	})
	if len(known) < 9 {
		t.Fatalf("the code has the exit statuses %v", known)
	}
	var told []int
	for name, help := range map[string]string{"resolve": resolveUsage, "apply": applyUsage, "status": statusUsage, "pin": pinUsage} {
		for code, meaning := range exitsOf(t, help) {
			if !slices.Contains(known, code) {
				t.Errorf("%s: %d (%s) is no exit status", name, code, meaning)
			}
			told = append(told, code)
		}
	}
	for _, code := range known {
		if !slices.Contains(told, code) {
			t.Errorf("no help tells of %d", code)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	resolve := exitsOf(t, resolveUsage)
	rows := exitInPage.FindAllStringSubmatch(string(readme), -1)
	for _, m := range rows {
		code, err := strconv.Atoi(m[1])
		if err != nil || resolve[code] == "" || !strings.HasPrefix(m[2], resolve[code]) {
			t.Errorf("the README has %d: %s, and the help of resolve %q", code, m[2], resolve[code])
		}
	}
	if len(rows) != len(resolve) {
		t.Errorf("the README has %d of them, the help of resolve %d", len(rows), len(resolve))
	}
}

// Who is to read what a command prints must not take nothing for an answer: on a full disk each command that prints fails.
// Where standard output is closed, Go's runtime has opened /dev/null: the command does what it does, and no file of its own
// gets what it prints.
func TestWhatCannotBePrintedIsAFailure(t *testing.T) {
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	lab := testvm.Start(t, cloud.Config{Server: cloud.Server{Hostname: "web-1"}})
	lines := []string{
		"resolve --nic eth0", "resolve --nic eth0 --output json", "resolve --nic eth0 --output env", "resolve --nic eth0 --wait 30s,rename=stop",
		"status --run RUN --root ROOT", "status --json --run RUN --root ROOT", "pin --root ROOT", "pin --undo --root ROOT", "version", "-v", "--version", "-version",
		"help", "-h", "--help", "-help",
	}
	for _, command := range commandsOfTheUsage(t) {
		lines = append(lines, command+" --help", "help "+command)
	}
	for _, line := range lines {
		if line == "version --help" || line == "help version" {
			continue // it has no flags
		}
		t.Run(line, func(t *testing.T) {
			run, root := t.TempDir(), t.TempDir()
			r := record.Record{Schema: record.Schema, Identity: identity.Identity{Hostname: here}}
			if err := r.Write(filepath.Join(run, "nametag/identity.json")); err != nil {
				t.Fatal(err)
			}
			if _, err := lasting.Root(root).Keep("web-1", t.TempDir()); err != nil {
				t.Fatal(err)
			}
			args := strings.Fields(strings.NewReplacer("RUN", run, "ROOT", root).Replace(line))
			command := func(name string, args ...string) *exec.Cmd {
				cmd := lab.Command(name, args...)
				cmd.Env = append(os.Environ(), actAs+"=nametag", quickExit)
				return cmd
			}
			closed := command("sh", append([]string{"-c", `exec "$0" "$@" >&-`, testBinary(t)}, args...)...)
			if out, err := closed.CombinedOutput(); err != nil {
				t.Errorf("closed: %v: %s", err, out)
			}
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer full.Close()
			var stderr bytes.Buffer
			cmd := command(testBinary(t), args...)
			cmd.Stdout, cmd.Stderr = full, &stderr
			if exit := exitOf(t, cmd.Run()); exit != exitFailed || !strings.Contains(stderr.String(), "nametag: ") || !strings.Contains(stderr.String(), syscall.ENOSPC.Error()) {
				t.Errorf("on a full disk: exit status %d, %s", exit, &stderr)
			}
		})
	}
}

// commandsOfTheUsage are the commands that the help lists.
func commandsOfTheUsage(t *testing.T) (all []string) {
	t.Helper()
	_, list, _ := strings.Cut(usage, "\nUsage:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		all = append(all, strings.Fields(line)[1])
	}
	if len(all) < 6 {
		t.Fatalf("the help lists %q", all)
	}
	return all
}

// testBinary is this program, which acts as nametag where the environment says so.
func testBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func TestVersionTakesNoArguments(t *testing.T) {
	if exit, stdout, stderr := said(t, "version", "x"); exit != exitUsage || stdout != "" {
		t.Errorf("version x: exit status %d, %q, %q", exit, stdout, stderr)
	}
}

// helpsOfCommands are the helps by command.
var helpsOfCommands = map[string]string{"resolve": resolveUsage, "apply": applyUsage, "status": statusUsage, "pin": pinUsage, "init": initUsage}

var flagInHelp = regexp.MustCompile(`(?m)^  --([a-z-]+)( [A-Z]+)?`)

// flagsOf are a help's flags, and whether each takes a value.
func flagsOf(help string) map[string]bool {
	all := map[string]bool{}
	for _, m := range flagInHelp.FindAllStringSubmatch(help, -1) {
		all[m[1]] = m[2] != ""
	}
	return all
}

// A value that is none, for each flag of each command: all end with the status of a command line that is not understood, print
// nothing on standard output, and do nothing. What they say names no flag that the command does not have.
func TestABadValueOfAnyFlagIsACommandLineThatIsNotUnderstood(t *testing.T) {
	if commands := commandsOfTheUsage(t); len(commands) != len(helpsOfCommands)+1 { // version has no flags
		t.Errorf("there are %q", commands)
	}
	lab := testvm.Start(t, cloud.Config{})
	bad := map[string]string{"nic": "eth0,nic", "expect-id": ""} // else "nonsense" is none
	walked := 0
	for command, help := range helpsOfCommands {
		flags := flagsOf(help)
		for name, takes := range flags {
			value, told := bad[name]
			switch {
			case slices.Contains([]string{"dmi", "root", "run", "next"}, name): // any name may be a file's
				continue
			case !told:
				value = "nonsense"
			}
			walked++
			args := []string{command, "--" + name, value}
			if !takes {
				args = []string{command, "--" + name + "=" + value}
			}
			var stdout, stderr bytes.Buffer
			cmd := nametag(lab, "nametag", args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if exit := exitOf(t, cmd.Run()); exit != exitUsage || stdout.Len() > 0 || stderr.Len() == 0 {
				t.Errorf("%q: exit status %d, %q, %q", args, exit, &stdout, &stderr)
			}
			for _, named := range pages.Flags(stderr.String()) {
				if _, there := flags[strings.TrimPrefix(named, "--")]; !there && named != "--help" {
					t.Errorf("%q: it names %s, which it does not have: %s", args, named, &stderr)
				}
			}
		}
	}
	if walked < 13 {
		t.Errorf("%d flags were walked", walked)
	}
	if asked := lab.Cloud.Requests(); len(asked) > 0 {
		t.Errorf("it asked: %v", asked)
	}
}

// A flag that a message names is one of the command whose file has it; what several commands share may name any.
func TestEveryFlagThatAMessageNamesIsThere(t *testing.T) {
	messages, err := pages.Messages(".", "../../internal/node", "../../identity", "../../earlynet", "../../procfs")
	if err != nil {
		t.Fatal(err)
	}
	seen, all := 0, flagsOf(strings.Join(slices.Collect(maps.Values(helpsOfCommands)), "\n"))
	for _, m := range messages {
		command := strings.TrimSuffix(filepath.Base(m.File), ".go")
		known := all
		if filepath.Dir(m.File) == "." && helpsOfCommands[command] != "" {
			known = flagsOf(helpsOfCommands[command])
		}
		for _, f := range m.Flags() {
			seen++
			if _, there := known[strings.TrimPrefix(f, "--")]; !there && f != "--help" && f != "--version" {
				t.Errorf("%s: a message names %s, which nametag %s does not have", m.File, f, command)
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d flags were found", seen)
	}
}
