package pages

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A Message is a string of the code, tests left out: what a program may say.
type Message struct {
	File string // as it was found
	Text string
}

// Messages are those of all that is below the folders.
func Messages(folders ...string) (all []Message, err error) {
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if text, err := strconv.Unquote(l.Value); err == nil {
						all = append(all, Message{filepath.ToSlash(name), text})
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

var aFlag = regexp.MustCompile(`(?:^|[\s'"(` + "`" + `])(--[a-z][a-z0-9-]*)`)

// Flags are those that a text names: --wait. One that is continued, as in --helper-%s, ends in a hyphen.
func Flags(text string) (all []string) {
	for _, m := range aFlag.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// Flags are those that the message names.
func (m Message) Flags() []string { return Flags(m.Text) }
