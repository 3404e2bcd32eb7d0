//go:build linux

// Package boot is nametag as the first process of the initramfs: it finds the name before anything else runs, gives it to
// the operating system that boots next, and gets out of the way.
//
// # Two processes
//
// A first process must not die: the kernel would panic. Everything that might, that is everything that reads from the
// network, loads modules or brings in a library, happens in a worker, a second process from the same binary. The first
// process only reads the policy, starts the worker, waits for it with a bound, and does what the policy says when there
// is no name: also when the worker panicked, was killed for want of memory, or hangs. First another worker looks for the
// name in the node's memory then, and asks nobody: a fault that comes at every boot keeps no node down that knows its name.
//
// # In order
//
//  1. The kernel command line is read from a procfs that is mounted nowhere. Without talos.hostname.wait=, or with off,
//     the next init is executed at once, and nothing was touched.
//  2. procfs, sysfs and devtmpfs are mounted below a folder of our own, so that nothing of ours can be in the way when
//     the next init mounts its own: Talos v1.9's gives up on a /dev that is busy.
//  3. The worker loads the network drivers where they are missing, and resolves the name.
//  4. The name is handed over: to a Talos on its kernel command line (package handover), to any other system as the
//     kernel's hostname and the record /run/nametag/identity.json.
//  5. All mounts are taken away, and the next init is executed with the arguments and the environment that the kernel
//     gave.
//
// Where 3 or 4 fail, the policy's then is carried out. Where no policy could be read at all, the next init is executed:
// nobody asked for waiting, as far as one can tell.
package boot
