//go:build linux

// Command nethttp imports net/http and does nothing: what the start of any client of HTTP costs, since package
// initialisation is part of a start.
package main

import _ "net/http"

func main() {}
