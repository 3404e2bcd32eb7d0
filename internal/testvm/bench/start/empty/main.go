//go:build linux

// Command empty is a Go program that does nothing: what any start costs.
package main

func main() {}
