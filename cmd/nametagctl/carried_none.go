//go:build !carry

package main

import "embed"

// carried is empty in a build that carries no helper.
var carried embed.FS
