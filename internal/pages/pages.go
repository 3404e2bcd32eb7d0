// Package pages reads the documentation as its tests do: its blocks, the commands in them, and which test runs each.
package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Files are the pages whose commands are run, by their path from the top of the tree: the README and all below docs.
func Files(top string) ([]string, error) {
	found := []string{"README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			name, err := filepath.Rel(top, file)
			if err != nil {
				return nil, err
			}
			found = append(found, filepath.ToSlash(name))
		}
	}
	slices.Sort(found)
	return found, nil
}

// A Block is one of a page that stands between fences.
//
// In sh every line is a command; in console a prompt comes before each, and behind it what it prints. No other language has
// commands.
type Block struct {
	Page     string // from the top
	Language string
	Line     int // of the fence
	Text     string
}

// Blocks reads a page.
func Blocks(top, page string) ([]Block, error) {
	b, err := os.ReadFile(filepath.Join(top, page))
	if err != nil {
		return nil, err
	}
	var found []Block
	inside := false
	for n, line := range strings.Split(string(b), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !inside:
			inside = true
			found = append(found, Block{Page: page, Language: language, Line: n + 1})
		case fence:
			inside = false
		case inside:
			found[len(found)-1].Text += line + "\n"
		}
	}
	if inside {
		return nil, fmt.Errorf("%s:%d: the block has no end", page, found[len(found)-1].Line)
	}
	return found, nil
}

// A Command is one that a reader may type, and what the page says that it prints.
type Command struct {
	Page   string
	Line   int
	Text   string // where it is continued, with the line ends
	Prints string
}

// String is where it stands, and what.
func (c Command) String() string { return fmt.Sprintf("%s:%d: %s", c.Page, c.Line, c.Text) }

// Commands are those of a block; a backslash continues one.
func (b Block) Commands() []Command {
	var found []Command
	n, continued := b.Line, false
	for line := range strings.Lines(b.Text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		command, isCommand := line, b.Language == "sh" && line != ""
		if b.Language == "console" {
			for _, prompt := range []string{"$ ", "# "} {
				if after, ok := strings.CutPrefix(line, prompt); ok {
					command, isCommand = after, true
				}
			}
		}
		last := len(found) - 1
		switch {
		case continued:
			found[last].Text += "\n" + line
			command = line
		case isCommand:
			found = append(found, Command{Page: b.Page, Line: n, Text: command})
		case last >= 0 && b.Language == "console":
			found[last].Prints += line + "\n"
		}
		continued = (continued || isCommand) && strings.HasSuffix(command, `\`)
	}
	return found
}

// Commands are those of all pages.
func Commands(top string) ([]Command, error) {
	files, err := Files(top)
	if err != nil {
		return nil, err
	}
	var all []Command
	for _, file := range files {
		blocks, err := Blocks(top, file)
		if err != nil {
			return nil, err
		}
		for _, b := range blocks {
			all = append(all, b.Commands()...)
		}
	}
	return all, nil
}

// Program is what a command starts first: shell words and settings before it are left out.
func (c Command) Program() string {
	words := strings.Fields(c.Text)
	for len(words) > 1 && (words[0] == "until" || words[0] == "sudo" || strings.Contains(words[0], "=")) {
		words = words[1:]
	}
	return strings.TrimPrefix(words[0], "bin/")
}

// A Guard is the test that runs a command.
type Guard struct{ File, Test string }

// The guards.
var (
	Workstation = Guard{"cmd/nametagctl/docs_test.go", "TestTheCommandsOfTheDocumentationRun"}
	Node        = Guard{"cmd/nametag/pages_test.go", "TestTheCommandsOfTheDocumentationRun"}
	Cluster     = Guard{"cluster/command/pages_test.go", "TestTheCommandsOfTheDocumentationRun"}
	Links       = Guard{"cmd/nametag/pages_test.go", "TestAKilledRunIsPutBackByHand"}
	Release     = Guard{"internal/release/dist/verify_test.go", "TestAReleaseIsVerifiedAsAUserWould"}
	Makefile    = Guard{"internal/docs_test.go", "TestEveryMakeTargetOfTheDocumentationIsThere"}
)

// Others are the programs that no test runs as the pages do, and why. A program that does nothing stands in for each, so that
// what is around it in a command runs.
var Others = map[string]string{
	"docker":              "runs Talos' imager, which is an image in a registry",
	"hcloud":              "makes servers that cost money; its flags are held against its manual",
	"hcloud-upload-image": "makes a snapshot; its flags are held against its manual",
	"helm":                "speaks to a cluster; the chart is tested in cluster/deploy",
	"install":             "installs a file of the package, whose place is tested in internal/release/packages",
	"journalctl":          "reads the journal of a system that booted; tested by make test-os",
	"kubectl":             "speaks to a cluster; the manifests are tested in cluster/command and cluster/deploy",
	"omnictl":             "speaks to an Omni",
	"packer":              "makes a snapshot; its files are tested in cluster/deploy",
	"sbsign":              "signs by a user's key; tested in internal/image/uki",
	"skopeo":              "pushes to a registry",
	"ssh":                 "writes a server's disk",
	"talosctl":            "speaks to a node; its flags are held against its manual",
	"zstd":                "unpacks the disk that the imager makes",
}

// shell are the shell's own words that begin a command: it runs as it stands.
var shell = []string{"export", "source"}

// Guard is the test that runs a command; without one it is another program's, or nobody's.
func (c Command) Guard() (g Guard, ok bool) {
	words := strings.Fields(c.Text)
	switch program := c.Program(); {
	case program == "nametag":
		return Node, true
	case program == "nametag-audit", program == "nametagctl" && len(words) > 1 && slices.Contains([]string{"audit", "pin", "capi"}, words[1]),
		program == "hcloud" && c.Page == "docs/pin.md":
		return Cluster, true
	case program == "nametagctl", slices.Contains(shell, program):
		return Workstation, true
	case program == "make":
		return Makefile, true
	case program == "minisign", program == "sha256sum":
		return Release, true
	case program == "ip", program == "sysctl":
		return Links, true
	}
	return Guard{}, false
}

var (
	aSize   = regexp.MustCompile(`\d+(\.|\\\.)\d [KM]iB`)
	aDigest = regexp.MustCompile(`sha256:[0-9a-f]+`)
	aTime   = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	aWait   = regexp.MustCompile(`\bin \d+ ms`)
)

// Shown is what a page shows, as what is compared with: sizes, digests and times are those of its author's files and machine,
// and … is whatever there is.
func Shown(text string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(text)
	pattern = aSize.ReplaceAllString(pattern, `\d+\.\d [KM]iB`)
	pattern = aDigest.ReplaceAllString(pattern, `sha256:[0-9a-f]+`)
	pattern = aTime.ReplaceAllString(pattern, aTime.String())
	pattern = aWait.ReplaceAllString(pattern, aWait.String())
	pattern = strings.ReplaceAll(pattern, "\n…\n", "\n(?s:.*)")
	return regexp.MustCompile(`^` + strings.ReplaceAll(pattern, "…", ".*") + `$`)
}
