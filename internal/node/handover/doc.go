//go:build linux

// Package handover gives the name to the operating system that boots next,
// without any change to that system.
//
// # Talos
//
// Talos' machined reads /proc/cmdline once, at its first moment, and a
// talos.hostname= on it outranks everything that could invent a name. So an
// amended copy of the command line is mounted onto /proc/cmdline after the next
// init (/init) has mounted its own /proc, and before that starts machined; the
// mount goes along when /init moves /proc into the new root; and it is taken away
// once the kernel's hostname is the name, for a mount that stays on /proc/cmdline
// makes every later mount of procfs in a user namespace fail with EPERM
// (mount_too_revealing in fs/namespace.c).
//
// By then the first process is no longer ours. Two processes do it, started by
// [Prepare] while it still is:
//
//   - The guardian keeps the order: it knows the time limits, watches the first
//     process' exec through a close-on-exec pipe and the mount table, mounts where
//     the tracer does not, takes the mount away, and carries the policy out when
//     the name could not be given.
//   - The tracer traces the first process' threads through the exec up to the
//     return of the call that mounts /proc, mounts the file while that thread
//     stands still, and lets go at once ([Strict]). Thereafter it stands by.
//
// Where ptrace is refused the guardian mounts at the first sight of the new /proc
// in the mount table ([Watch]), and proves that this was in time: /proc has not
// been moved to the new root yet, hence no machined runs.
//
// Each of the two watches the other, by a pipe that ends with its owner. If the
// guardian is killed, the tracer does the rest; if the tracer is killed or stuck,
// the kernel lets the first process go on and the guardian falls back to Watch. If
// both are gone before the exec, [Handover.Commit] fails, and the policy is the
// caller's. Both killed at one moment after the exec is the case that nothing
// covers: no process of ours is left then.
//
// What is not covered either: a next init that mounts its /proc elsewhere than on
// /proc, or in a mount namespace of its own. That looks like one that never mounts
// it, and the policy is carried out.
//
// After the new root is in place and a SELinux policy is loaded, neither process
// executes anything, opens anything by path, or looks at /proc/1: all that they
// need then, they hold as descriptors.
//
// # Other systems
//
// [SetHostname], and the record of package record.
package handover
