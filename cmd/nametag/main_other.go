//go:build !linux

// Command nametag is for nodes, and those run Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "nametag: this command is for nodes, and needs Linux; nametagctl, which puts it into images, runs here")
	os.Exit(1)
}
