package lab

import (
	"errors"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// A tree serves a folder as a cloud's metadata service serves its documents: a file is its bytes, whatever the query; a
// folder is what is in it, one name a line, folders with a slash behind them, as EC2's service lists its own.
type tree struct{ fs.FS }

func (t tree) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "it is read only", http.StatusMethodNotAllowed)
		return
	}
	body, err := t.read(strings.Trim(path.Clean("/"+r.URL.Path), "/"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.NotFound(w, r)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // to somebody who is gone
}

func (t tree) read(name string) ([]byte, error) {
	if name == "" {
		name = "."
	}
	info, err := fs.Stat(t, name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return fs.ReadFile(t, name)
	}
	entries, err := fs.ReadDir(t, name)
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for i, e := range entries {
		if i > 0 {
			list.WriteByte('\n')
		}
		list.WriteString(e.Name())
		if e.IsDir() {
			list.WriteByte('/')
		}
	}
	return []byte(list.String()), nil
}
