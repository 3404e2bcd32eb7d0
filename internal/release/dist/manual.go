package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// writeManual writes man pages and shell completions, by asking the commands themselves.
func writeManual(dir string) error {
	ctl, err := own(dir, "nametagctl")
	if err != nil {
		return err
	}
	if err := os.Setenv("SOURCE_DATE_EPOCH", sourceDate()); err != nil {
		return err
	}
	if _, err := ask(ctl, "manual", filepath.Join(dir, "man")); err != nil {
		return err
	}
	audit, err := own(dir, auditor)
	if err != nil {
		return err
	}
	for command, program := range map[string]string{"nametagctl": ctl, auditor: audit} {
		for _, shell := range []string{"bash", "zsh", "fish"} {
			script, err := ask(program, "completion", shell)
			if err != nil {
				return err
			}
			if err := write(dir, "completions/"+command+"."+shell, script); err != nil {
				return err
			}
		}
	}

	node, err := own(dir, "nametag")
	if err != nil {
		return err
	}
	about, err := ask(node, "help")
	if err != nil {
		return err
	}
	if err := write(dir, "man/nametag.1", manPage("nametag", about)); err != nil {
		return err
	}
	commands, err := nametagCommands(about, func(command string) (string, error) {
		help, err := ask(node, command, "--help")
		if err != nil {
			return "", err
		}
		return help, write(dir, "man/nametag-"+command+".1", manPage("nametag-"+command, help))
	})
	if err != nil {
		return err
	}
	for shell, script := range map[string]string{
		"bash": bashCompletion(commands), "zsh": zshCompletion(commands), "fish": fishCompletion(commands),
	} {
		if err := write(dir, "completions/nametag."+shell, script); err != nil {
			return err
		}
	}
	return nil
}

// sourceDate is when the source was committed, in seconds of the epoch; its beginning where git does not know.
func sourceDate() string {
	if set := os.Getenv("SOURCE_DATE_EPOCH"); set != "" {
		return set
	}
	out, err := exec.Command("git", "log", "-1", "--format=%ct").Output() //nolint:noctx // it prints and ends
	if err != nil {
		return "0"
	}
	return strings.TrimSpace(string(out))
}

// sourceTime is sourceDate as a time.
func sourceTime() (time.Time, error) {
	seconds, err := strconv.ParseInt(sourceDate(), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0), nil
}

func write(dir, name, content string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644) //nolint:gosec // for everybody to read
}

// ask runs a built command and returns what it prints.
func ask(command string, args ...string) (string, error) {
	out, err := exec.Command(command, args...).Output() //nolint:noctx // it prints and ends
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", filepath.Base(command), strings.Join(args, " "), err)
	}
	return string(out), nil
}

// manPage puts a command's help into the form of man(7). Its first line is the description; the rest is laid out already.
func manPage(name, help string) string {
	first, rest, _ := strings.Cut(help, "\n")
	summary := strings.TrimSuffix(strings.TrimPrefix(first, strings.ReplaceAll(name, "-", " ")+" "), ".")
	escape := strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\[u2026]`)
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"nametag\" \"User Commands\"\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n.nf\n",
		strings.ToUpper(escape.Replace(name)), escape.Replace(name), escape.Replace(summary))
	for line := range strings.Lines(strings.TrimSpace(rest) + "\n") {
		text := escape.Replace(line)
		if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
			text = `\&` + text // not a request
		}
		b.WriteString(text)
	}
	b.WriteString(".fi\n")
	return b.String()
}
