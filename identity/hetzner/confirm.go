package hetzner

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path"

	"gopkg.in/yaml.v3"
)

// confirm looks for other evidence that a body came whole, where two reads ended alike with their connections. What
// cuts every answer at the same byte makes two reads of "my-serv" agree. A line's end would be missing then; and in the
// document that has everything, the value stands in the midst, where a line's end follows it. Where the service has no
// such document, reads are all that there is to go by; a last one sees to it that nothing has changed since the first.
func (g *guard) confirm(req *http.Request, body []byte) error {
	name := path.Base(req.URL.Path)
	if name != "hostname" && name != "instance-id" || bytes.HasSuffix(body, []byte("\n")) {
		return nil // no proof hangs on it, or it has the end of its line
	}
	all := req.Clone(req.Context())
	all.URL.Path = path.Dir(req.URL.Path)
	document, _, err := g.exchange(all, nil)
	if status, ok := errors.AsType[*StatusError](err); ok && status.absent() {
		last, _, err := g.exchange(req, nil)
		if err == nil && !bytes.Equal(body, last) {
			err = fmt.Errorf("%w: %.40q, then %.40q", ErrUncertain, body, last)
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("reading the whole document, for want of a certain end: %w", err)
	}
	value, found := lineOf(document, name)
	switch {
	case !found:
		return fmt.Errorf("%w: it has none, or not all of it", ErrUnconfirmed)
	case value != string(bytes.TrimSpace(body)):
		return fmt.Errorf("%w: %.40q here, %.40q there", ErrUnconfirmed, body, value)
	}
	return nil
}

// maxLine bounds a line that is decoded: the longest name, its key, quotes and a comment.
const maxLine = 512

// lineOf is the value of a key at the top of a YAML document, if its line is there up to the end. The document is not
// decoded as a whole: what stands behind that line may have been cut off anywhere.
func lineOf(document []byte, key string) (value string, found bool) {
	for line := range bytes.Lines(document) {
		if !bytes.HasPrefix(line, []byte(key+":")) || !bytes.HasSuffix(line, []byte("\n")) {
			continue
		}
		if len(line) > maxLine {
			return "", false
		}
		var entry map[string]yaml.Node
		if err := decodeYAML(string(line), &entry); err != nil {
			return "", false
		}
		return entry[key].Value, entry[key].Value != ""
	}
	return "", false
}
