//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// become makes this process that program. It comes back only where that failed.
func become(program string, argv []string) error { return unix.Exec(program, argv, os.Environ()) }
