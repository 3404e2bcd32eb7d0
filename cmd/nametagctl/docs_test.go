package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commandInDocs is a line of a code block that runs nametagctl, up to a comment.
var commandInDocs = regexp.MustCompile(`(?m)^(?:\$ )?(?:bin/)?nametagctl ([^#\n]+)`)

// What the documentation tells a user to type is understood: each command is there, with each of its flags.
func TestTheCommandsOfAllDocumentationAreUnderstood(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 6 {
		t.Fatalf("the documentation is not there: %q, %v", pages, err)
	}
	seen := 0
	for _, page := range append(pages, "../../README.md") {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(content), "\\\n", " ") // a line that is continued
		for _, m := range commandInDocs.FindAllStringSubmatch(text, -1) {
			seen++
			line := strings.TrimSpace(m[1])
			t.Run(filepath.Base(page)+": "+line, func(t *testing.T) {
				if err := understood(strings.Fields(line)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if seen < 15 {
		t.Errorf("only %d commands were found", seen)
	}
}

// understood finds the command and parses its flags, and runs nothing.
func understood(args []string) error {
	for i, a := range args {
		if a == "--" || a == "|" || a == ">" { // the rest is another command's, or the shell's
			args = args[:i]
			break
		}
	}
	root := &cobra.Command{Use: "nametagctl"}
	root.AddCommand(commands()...)
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	return cmd.ParseFlags(rest)
}
