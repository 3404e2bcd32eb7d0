//go:build linux

// Package scenarios holds the named scenarios of the whole: every shape of server, every fault of the frames, of DHCP, of
// the metadata service and of the machine, each with what must come out. That is the right name, or the policy's outcome
// within its bound and a message that names the cause; and never a trace on the network.
//
// They run the library over real links in a namespace, and where the process itself is what matters, the command as it
// ships. What single packages are to do about a fault is tested there; what random mixes of faults come to, in
// internal/testvm/chaos; what takes half a minute and more in package patience.
package scenarios
