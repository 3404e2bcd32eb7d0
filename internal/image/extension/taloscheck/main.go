// Command taloscheck has Talos' own code judge an extension: it loads the unpacked extension in the folder that it is
// given and validates constraint and contents, as the imager does, for the release of Talos that it is built with.
//
// It is a module of its own, so that nametag does not depend on Talos: go.mod builds it with Talos 1.12, talos-1.9.mod
// (go run -modfile=talos-1.9.mod) with 1.9.
package main

import (
	"fmt"
	"os"

	"github.com/siderolabs/talos/pkg/machinery/extensions"
	"github.com/siderolabs/talos/pkg/machinery/version"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: taloscheck FOLDER")
		os.Exit(2)
	}
	extension, err := extensions.Load(os.Args[1])
	if err == nil {
		err = extension.Validate(extensions.WithValidateConstraints(), extensions.WithValidateContents())
	}
	if err != nil {
		fmt.Fprintf(os.Stdout, "Talos %s refuses: %v\n", version.Tag, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stdout, "Talos %s takes %s %s\n", version.Tag, extension.Manifest.Metadata.Name, extension.Manifest.Metadata.Version)
}
