//go:build !linux

package earlynet_test

import (
	"errors"
	"testing"

	"github.com/nametag-boot/nametag/earlynet"
)

func TestLinksAreBroughtUpOnLinuxOnly(t *testing.T) {
	n, err := earlynet.Open(t.Context(), earlynet.Config{})
	var typed *earlynet.Error
	if n != nil || !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &typed) {
		t.Errorf("%v, %v", n, err)
	}
}
