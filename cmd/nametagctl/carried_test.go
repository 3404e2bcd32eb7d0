package main

import (
	"errors"
	"io/fs"
	"testing"
)

func TestABuildThatCarriesNothingSaysWhatItSaidBefore(t *testing.T) {
	before := errors.New("there is none beside nametagctl")
	for _, architectures := range [][]string{nil, {"amd64"}, {"amd64", "arm64"}} {
		if found, err := findCarried(architectures, before); !errors.Is(err, before) || found != nil {
			t.Errorf("for %q: %v, %v", architectures, found, err)
		}
	}
	if _, err := carriedHelper("amd64"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
}
