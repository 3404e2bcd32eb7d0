// Package buildinfo says which build of a command this is.
package buildinfo

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Line is what a command's version command prints: its name, version, toolchain and platform. A version that the linker
// has set goes before the one that the module was fetched by.
func Line(command, linked string) string {
	version := linked
	if version == "" {
		version = "devel"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
			version = info.Main.Version
		}
	}
	return fmt.Sprintf("%s %s %s %s/%s", command, version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
