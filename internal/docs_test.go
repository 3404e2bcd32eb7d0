package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A page is a Markdown file of the project, by its path from the top.
type page struct {
	path string
	// prose is the text without the blocks of code, lines the headings among it.
	prose    string
	headings []string
}

func pages(t *testing.T) map[string]page {
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
	all := pages(t)
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
	for _, p := range pages(t) {
		for _, m := range ourPath.FindAllStringSubmatch(p.prose, -1) {
			if _, err := os.Stat(filepath.Join("..", strings.TrimSuffix(m[1], "/..."))); err != nil {
				t.Errorf("%s names %s, which is not there", p.path, m[1])
			}
		}
	}
}

// A target that a page names is one of the Makefile.
func TestEveryMakeTargetOfTheDocumentationIsThere(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`make ([a-z-]+)[^`]*`")
	for _, p := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(p.prose, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s names make %s, which the Makefile does not have", p.path, m[1])
			}
		}
	}
}
