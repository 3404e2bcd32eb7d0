package internal_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nametag-boot/nametag/internal/pages"
)

// A page is a Markdown file of the project, by its path from the top.
type page struct {
	path string
	// prose is the text without the blocks of code, lines the headings among it.
	prose    string
	headings []string
}

func readPages(t *testing.T) map[string]page {
	t.Helper()
	found := map[string]page{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "content" || d.Name() == "dist" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		// Below internal are texts that become parts of pages.
		if d.IsDir() || !strings.HasSuffix(path, ".md") || strings.HasPrefix(filepath.ToSlash(path), "../internal/") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		p := page{path: strings.TrimPrefix(filepath.ToSlash(path), "../")}
		fence := ""
		var prose strings.Builder
		for line := range strings.Lines(string(text)) {
			mark := strings.TrimSpace(line)
			switch {
			case fence == "" && (strings.HasPrefix(mark, "```") || strings.HasPrefix(mark, "~~~")):
				fence = mark[:3]
			case fence != "" && strings.HasPrefix(mark, fence):
				fence = ""
			case fence == "":
				if text := strings.TrimLeft(line, "#"); len(text) < len(line) && strings.HasPrefix(text, " ") {
					p.headings = append(p.headings, strings.TrimSpace(text))
				}
				prose.WriteString(line)
			}
		}
		if fence != "" {
			t.Errorf("%s: a block of code does not end", p.path)
		}
		p.prose = prose.String()
		found[p.path] = p
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var (
	mdLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	htmlID   = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	mdMarkup = regexp.MustCompile("[`*]|\\]\\([^)]*\\)|\\[")
	notSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are where a link may lead on the page, as GitHub makes them of the headings.
func (p page) anchors() map[string]bool {
	all := map[string]bool{"": true}
	for _, h := range p.headings {
		slug := mdMarkup.ReplaceAllString(h, "")
		slug = notSlug.ReplaceAllString(strings.ToLower(slug), "")
		all[strings.ReplaceAll(slug, " ", "-")] = true
	}
	for _, m := range htmlID.FindAllStringSubmatch(p.prose, -1) {
		all[m[1]] = true
	}
	return all
}

func TestEveryLinkOfTheDocumentationLeadsSomewhere(t *testing.T) {
	all := readPages(t)
	links := 0
	for _, p := range all {
		for _, m := range mdLink.FindAllStringSubmatch(p.prose, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			to := p.path
			if file != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(p.path), file))
			}
			if _, err := os.Stat(filepath.Join("..", to)); err != nil {
				t.Errorf("%s links to %s, which is not there", p.path, m[1])
			} else if there, isPage := all[to]; isPage && !there.anchors()[anchor] {
				t.Errorf("%s links to %s, where nothing has this anchor", p.path, m[1])
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

var ourPath = regexp.MustCompile("`((?:cmd|cluster|docs|earlynet|examples|hack|identity|internal|procfs|systems)/[A-Za-z0-9_./-]*[A-Za-z0-9_/-])`")

func TestEveryPathThatTheDocumentationNamesIsThere(t *testing.T) {
	for _, p := range readPages(t) {
		for _, m := range ourPath.FindAllStringSubmatch(p.prose, -1) {
			if _, err := os.Stat(filepath.Join("..", strings.TrimSuffix(m[1], "/..."))); err != nil {
				t.Errorf("%s names %s, which is not there", p.path, m[1])
			}
		}
	}
}

// A target that a page names is one of the Makefile, and it heeds the variables that are given with it.
func TestEveryMakeTargetOfTheDocumentationIsThere(t *testing.T) {
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	makefile := string(text)
	check := func(where, command string) {
		words := strings.Fields(command)
		if len(words) < 2 {
			return // make alone lists them
		}
		_, recipe, found := strings.Cut(makefile, "\n"+words[1]+":")
		recipe, _, _ = strings.Cut(recipe, "\n\n")
		if !found {
			t.Errorf("%s names make %s, which the Makefile does not have", where, words[1])
		}
		for _, m := range regexp.MustCompile(` ([A-Z]+)=`).FindAllStringSubmatch(command, -1) {
			if !regexp.MustCompile(`\$\((\w+ )?` + m[1] + `\)`).MatchString(recipe) {
				t.Errorf("%s: make %s does nothing with %s=", where, words[1], m[1])
			}
		}
	}
	named := regexp.MustCompile("`(make(?: [a-z-]+[^`]*)?)`")
	for _, p := range readPages(t) {
		for _, m := range named.FindAllStringSubmatch(p.prose, -1) {
			check(p.path, m[1])
		}
	}
	commands, err := pages.Commands("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if c.Program() == "make" {
			line, _, _ := strings.Cut(c.Text, "#")
			check(fmt.Sprintf("%s:%d", c.Page, c.Line), line)
		}
	}
}

// typed is a line that a reader may take for one to type.
var typed = regexp.MustCompile(`^(?:[$#] )?(?:sudo )?(?:bin/)?(nametag|nametagctl|nametag-audit|make|go|cd|docker|hcloud|hcloud-upload-image|helm|install|ip|journalctl|kubectl|minisign|omnictl|packer|sbsign|sha256sum|skopeo|ssh|sysctl|systemctl|talosctl|apt-get|dracut|update-initramfs|curl|tar|cp|mv|sh|openssl|zstd|dmesg) [^={ ]`)

// Every command of a page is run by a test, or stands among those that cannot be, with the reason. What a reader may type stands in
// a block whose language says so, where the tests look.
func TestEveryCommandOfTheDocumentationHasATest(t *testing.T) {
	files, err := pages.Files("..")
	if err != nil {
		t.Fatal(err)
	}
	run, used := map[pages.Guard]int{}, map[string]int{}
	for _, file := range files {
		blocks, err := pages.Blocks("..", file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			// Those that have commands, and those that have none: another may have.
			if !slices.Contains([]string{"sh", "console", "", "text", "go", "json", "yaml", "hcl", "ipxe"}, b.Language) {
				t.Errorf("%s:%d: what is %s? Are there commands in it?", file, b.Line, b.Language)
			}
			commands := b.Commands()
			for _, c := range commands {
				guard, ok := c.Guard()
				switch {
				case ok:
					run[guard]++
				case pages.Others[c.Program()] != "":
					used[c.Program()]++
				default:
					t.Errorf("%s\nno test runs this, and no reason stands in pages.Others", c)
				}
			}
			if b.Language == "sh" || b.Language == "console" {
				continue
			}
			for line := range strings.Lines(b.Text) {
				if typed.MatchString(line) {
					t.Errorf("%s:%d: %q may be typed: its block must be sh or console, where a test runs it", file, b.Line, strings.TrimSpace(line))
				}
			}
		}
	}
	for guard, n := range run {
		t.Logf("%3d commands: %s of %s", n, guard.Test, guard.File)
		code, err := os.ReadFile(filepath.Join("..", guard.File))
		if err != nil || !strings.Contains(string(code), "\nfunc "+guard.Test+"(t *testing.T)") {
			t.Errorf("%s has no %s (%v), which is to run %d commands", guard.File, guard.Test, err, n)
		}
	}
	for name, why := range pages.Others {
		t.Logf("%3d commands: none, %s %s", used[name], name, why)
		if used[name] == 0 {
			t.Errorf("no page has a command %s: take it from pages.Others", name)
		}
	}
	if len(run) < 6 {
		t.Errorf("only %d tests run any", len(run))
	}
}

// A command of Go's in the text is about a package that is there.
func TestEveryPackageOfTheDocumentationsGoCommandsIsThere(t *testing.T) {
	command, folder := regexp.MustCompile("`(?:cd ([^ `]+) && )?go (?:run|test|build) ([^`]*)`"), regexp.MustCompile(`(?:^| )(\./[^ ]*)`)
	seen := 0
	for _, p := range readPages(t) {
		for _, m := range command.FindAllStringSubmatch(p.prose, -1) {
			for _, f := range folder.FindAllStringSubmatch(m[2], -1) {
				seen++
				if st, err := os.Stat(filepath.Join("..", m[1], strings.TrimSuffix(f[1], "/..."))); err != nil || !st.IsDir() {
					t.Errorf("%s: %s: there is no %s", p.path, m[0], f[1])
				}
			}
		}
	}
	if seen < 3 {
		t.Errorf("only %d were found", seen)
	}
}

// A page, an anchor, a script and a target of make that a message names are there. (The rows of docs/boot.md that the console's lines
// lead to are held in internal/node/remedy.)
func TestEveryPathThatAMessageNamesIsThere(t *testing.T) {
	messages, err := pages.Messages("../cmd", "../cluster", "../earlynet", "../identity", "../internal/cli", "../internal/image", "../internal/node", "../internal/testvm", "../procfs", "../examples")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	all := readPages(t)
	path := regexp.MustCompile(`\b((?:docs|hack)/[A-Za-z0-9_/-]+(?:\.md)?)(?:#([a-z0-9-]+))?`)
	target := regexp.MustCompile("['`]make ([a-z-]+)['` ]")
	seen := 0
	for _, m := range messages {
		for _, named := range path.FindAllStringSubmatch(m.Text, -1) {
			seen++
			if _, err := os.Stat(filepath.Join("..", named[1])); err != nil {
				t.Errorf("%s: a message names %s, which is not there", m.File, named[1])
			} else if p, isPage := all[named[1]]; isPage && !p.anchors()[named[2]] {
				t.Errorf("%s: a message names %s, where nothing has this anchor", m.File, named[0])
			}
		}
		for _, named := range target.FindAllStringSubmatch(m.Text, -1) {
			seen++
			if !strings.Contains(string(makefile), "\n"+named[1]+":") {
				t.Errorf("%s: a message names make %s, which the Makefile does not have", m.File, named[1])
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d were found", seen)
	}
}
