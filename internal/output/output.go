// Package output is where commands print that do not escape what is foreign, as package cli does.
package output

import (
	"fmt"
	"io"
)

// A Page is standard output. It remembers the first error: most of what is printed is printed by calls whose error nobody
// looks at, and who is to read it must not take nothing for an answer. It is for one goroutine.
type Page struct {
	To  io.Writer
	Err error // the first
}

// Write prints.
func (p *Page) Write(text []byte) (int, error) {
	n, err := p.To.Write(text)
	if err != nil && p.Err == nil {
		p.Err = fmt.Errorf("printing: %w", err)
	}
	return n, err
}
