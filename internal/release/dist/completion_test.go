package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// completions are those of nametag, as a release writes them.
func completions(t *testing.T) (dir string, commands []completed) {
	t.Helper()
	dir = t.TempDir()
	binary := filepath.Join(dir, "nametag")
	if said, err := exec.Command("go", "build", "-C", "../../..", "-o", binary, "./cmd/nametag").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	usage, err := ask(binary, "help")
	if err != nil {
		t.Fatal(err)
	}
	commands, err = nametagCommands(usage, func(command string) (string, error) { return ask(binary, "help", command) })
	if err != nil {
		t.Fatal(err)
	}
	for shell, script := range map[string]string{"bash": bashCompletion(commands), "zsh": zshCompletion(commands), "fish": fishCompletion(commands)} {
		if err := write(dir, "nametag."+shell, script); err != nil {
			t.Fatal(err)
		}
	}
	return dir, commands
}

func TestTheCompletionsKnowWhatTheHelpSays(t *testing.T) {
	dir, commands := completions(t)
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	if got := strings.Join(names, " "); got != "resolve apply status pin init version help" {
		t.Errorf("the commands are %q", got)
	}
	for _, c := range commands {
		if c.about == "" || len(c.flags) == 0 && c.name != "version" && c.name != "help" {
			t.Errorf("%s: %q, %d flags", c.name, c.about, len(c.flags))
		}
	}
	asks := map[string]func(t *testing.T, line string) []string{
		"bash": func(t *testing.T, line string) []string {
			return lines(t, exec.Command("bash", "-c", `. "$1"; read -ra COMP_WORDS <<<"$2"; [[ $2 != *" " ]] || COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _nametag; printf '%s\n' "${COMPREPLY[@]}"`,
				"bash", filepath.Join(dir, "nametag.bash"), line))
		},
		"fish": func(t *testing.T, line string) []string {
			return lines(t, exec.Command("fish", "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, filepath.Join(dir, "nametag.fish"), line))
		},
	}
	for shell, complete := range asks {
		t.Run(shell, func(t *testing.T) {
			tool(t, shell)
			for line, want := range map[string][]string{"nametag ": names, "nametag re": {"resolve"}, "nametag help sta": {"status"}, "nametag version ": nil} {
				if got := complete(t, line); !slices.Equal(sorted(got), sorted(want)) {
					t.Errorf("%q: %q, want %q", line, got, want)
				}
			}
			for _, c := range commands {
				got := complete(t, "nametag "+c.name+" --")
				for _, f := range c.flags {
					if !slices.Contains(got, f.name) {
						t.Errorf("%s %s is not among %q", c.name, f.name, got)
					}
				}
			}
			folder := filepath.Join(dir, "folder") + "/"
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if got := complete(t, "nametag apply --root "+strings.TrimSuffix(folder, "er/")); len(got) != 1 || !strings.HasPrefix(folder, got[0]) {
				t.Errorf("a folder: %q", got)
			}
		})
	}
}

// zsh completes at a terminal only: one is made for it, and what stands on its line then is written to a file.
func TestZshCompletesTheNodesCommand(t *testing.T) {
	tool(t, "zsh")
	dir, _ := completions(t)
	if err := write(dir, "rc", `PROMPT=
autoload -Uz compinit && compinit -u -D
source "`+dir+`/nametag.zsh"
tell() { print -r -- "$BUFFER" >> "`+dir+`/lines"; BUFFER= }
zle -N tell
bindkey '^P' tell
bindkey '^I' complete-word
PROMPT=REA''DY
`); err != nil {
		t.Fatal(err)
	}
	typed := []string{"nametag resol", "nametag help stat", "nametag resolve --expec", "nametag status --js", "nametag apply --at"}
	const script = `zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "source $1/rc"
shift
zpty -r -m z said '*READY*'
for line; do zpty -n -w z "$line"$'\t\x10'; done
zpty -w z exit
while zpty -r z said; do :; done
exit 0`
	cmd := exec.Command("zsh", append([]string{"-f", "-c", script, "zsh", dir}, typed...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm", "HOME="+dir, "ZDOTDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "lines"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "nametag resolve \nnametag help status \nnametag resolve --expect-id=\nnametag status --json \nnametag apply --at-boot \n"
	if string(got) != want {
		t.Errorf("the lines are\n%swant\n%s", got, want)
	}
}

// lines are the first words of the lines that a command prints.
func lines(t *testing.T, cmd *exec.Cmd) []string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var all []string
	for _, line := range regexp.MustCompile(`(?m)^[^\t\n]+`).FindAllString(string(out), -1) {
		all = append(all, strings.TrimSpace(line))
	}
	return all
}

func sorted(all []string) []string { return slices.Sorted(slices.Values(all)) }
