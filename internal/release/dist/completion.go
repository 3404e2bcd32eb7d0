package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A completed command is what the completions of nametag know of one of its commands: what its help says. The node's
// binary has no completions of its own; it is to stay small.
type completed struct {
	name, about string
	flags       []completedFlag
}

type completedFlag struct {
	name  string // with its dashes
	value string // what the help calls it; empty: it takes none
	about string
}

// nametagCommands reads the commands from nametag's help, and the flags of each from its own. help gives that of a command.
func nametagCommands(usage string, help func(command string) (string, error)) ([]completed, error) {
	var all []completed
	for _, m := range commandInUsage.FindAllStringSubmatch(usage, -1) {
		c := completed{name: m[1], about: m[2]}
		if c.name != "version" {
			text, err := help(c.name)
			if err != nil {
				return nil, err
			}
			c.flags = flagsOf(text)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("nametag's help lists no commands: %q", usage)
	}
	return append(all, completed{name: "help", about: "show the help of a command"}), nil
}

var (
	commandInUsage = regexp.MustCompile(`(?m)^  nametag ([a-z]+)(?: \[flags\])? {2,}(.+)$`)
	flagInHelp     = regexp.MustCompile(`(?m)^  (--[a-z-]+)(?: ([A-Z]\S*))? {2,}(.+)$`)
)

// flagsOf is the flags that a help text lists.
func flagsOf(help string) []completedFlag {
	var flags []completedFlag
	for _, m := range flagInHelp.FindAllStringSubmatch(help, -1) {
		about, _, _ := strings.Cut(m[3], ";")
		flags = append(flags, completedFlag{m[1], m[2], strings.TrimRight(about, " .,:")})
	}
	slices.SortStableFunc(flags, func(a, b completedFlag) int { return strings.Compare(a.name, b.name) })
	return slices.CompactFunc(flags, func(a, b completedFlag) bool { return a.name == b.name })
}

// quoted is a text as bash, zsh and fish read it between single quotes.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`'`, `'\''`, `\`, `\\`).Replace(s) + "'"
}

func bashCompletion(all []completed) string {
	var names, cases []string
	for _, c := range all {
		names = append(names, c.name)
		if len(c.flags) == 0 {
			continue
		}
		words := []string{"--help"}
		var folders []string
		for _, f := range c.flags {
			words = append(words, f.name)
			if f.value == "DIR" {
				folders = append(folders, " "+c.name+" "+f.name)
			}
		}
		for _, f := range folders {
			cases = append(cases, fmt.Sprintf("    *%q) mapfile -t COMPREPLY < <(compgen -d -- \"$current\"); return ;;\n", f))
		}
		cases = append(cases, fmt.Sprintf("    *%q*) words=%q ;;\n", " "+c.name+" ", strings.Join(words, " ")))
	}
	return `# bash completion for nametag
_nametag() {
  local words="" current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
  case "$COMP_CWORD ${COMP_WORDS[1]} $before" in
    "1 "* | "2 help "*) words="` + strings.Join(names, " ") + `" ;;
` + strings.Join(cases, "") + `  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _nametag nametag
`
}

func zshCompletion(all []completed) string {
	var names, cases strings.Builder
	// In a specification of _arguments and _describe, these have a meaning.
	plain := strings.NewReplacer(`\`, `\\`, ":", `\:`, "[", `\[`, "]", `\]`)
	for _, c := range all {
		fmt.Fprintf(&names, "    %s\n", zshQuoted(c.name+":"+plain.Replace(c.about)))
		if len(c.flags) == 0 {
			continue
		}
		fmt.Fprintf(&cases, "    %s)\n      _arguments '--help[show the help]'", c.name)
		for _, f := range c.flags {
			spec := f.name
			if f.value != "" {
				spec += "="
			}
			spec += "[" + plain.Replace(f.about) + "]"
			switch f.value {
			case "":
			case "DIR":
				spec += ":folder:_files -/"
			default:
				spec += ":" + plain.Replace(f.value) + ": "
			}
			fmt.Fprintf(&cases, " \\\n        %s", zshQuoted(spec))
		}
		cases.WriteString(" ;;\n")
	}
	return `#compdef nametag
# zsh completion for nametag
_nametag() {
  local -a commands
  commands=(
` + names.String() + `  )
  if (( CURRENT == 2 )) || [[ $words[2] == help && $CURRENT == 3 ]]; then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
` + cases.String() + `  esac
}
if [[ $funcstack[1] == _nametag ]]; then
  _nametag "$@"
else
  compdef _nametag nametag
fi
`
}

// zshQuoted is a text between single quotes, in which zsh knows no escapes.
func zshQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func fishCompletion(all []completed) string {
	var b strings.Builder
	b.WriteString("# fish completion for nametag\ncomplete -c nametag -f\n")
	for _, c := range all {
		fmt.Fprintf(&b, "complete -c nametag -n __fish_use_subcommand -a %s -d %s\n", c.name, quoted(c.about))
	}
	for _, c := range all {
		if c.name != "help" {
			fmt.Fprintf(&b, "complete -c nametag -n '__fish_seen_subcommand_from help' -a %s -d %s\n", c.name, quoted(c.about))
		}
	}
	for _, c := range all {
		for _, f := range c.flags {
			fmt.Fprintf(&b, "complete -c nametag -n '__fish_seen_subcommand_from %s' -l %s", c.name, strings.TrimPrefix(f.name, "--"))
			switch f.value {
			case "":
			case "DIR":
				b.WriteString(" -x -a '(__fish_complete_directories)'")
			default:
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", quoted(f.about))
		}
	}
	return b.String()
}
