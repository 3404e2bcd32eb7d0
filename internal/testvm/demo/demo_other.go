//go:build !linux

package demo

import (
	"context"
	"io"
	"os"

	"github.com/nametag-boot/nametag/internal/testvm/lab"
)

// Run is for Linux.
func Run(*os.File) error { return lab.ErrLinux }

// Boot is for Linux.
func Boot(context.Context, string, io.Writer) error { return lab.ErrLinux }
