// Package overlay changes a file of the checkout for one run of the go command (-overlay), and leaves the checkout as it is:
// to build or test what has a fault.
package overlay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Change writes to dir what the go command needs to see another text in a file, in place of one that stands there once. It
// returns the value of -overlay.
func Change(dir, file, before, after string) (list string, err error) {
	file, err = filepath.Abs(file)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(text, []byte(before)); n != 1 {
		return "", fmt.Errorf("does not fit: what it changes stands %d times in %s", n, file)
	}
	changed := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(changed, bytes.Replace(text, []byte(before), []byte(after), 1), 0o600); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		return "", err
	}
	list = filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, replace, 0o600)
}
