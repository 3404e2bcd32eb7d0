//go:build carry

package main

import "embed"

// carried has the node's binaries, zstd-compressed. The release puts them there before it builds with -tags carry.
//
//go:embed carried
var carried embed.FS
