// Package patience says how long a test waits, and holds the named scenarios that take real time: half a minute and more
// of a network that is not there, over real links. Each has a node of its own, and all of them wait at once.
package patience
