// Package patience holds the named scenarios that take real time: half a minute and more of a network that is not there,
// over real links. Each has a node of its own, and all of them wait at once; the packages' tests run beside those of
// others (see the Makefile).
package patience
