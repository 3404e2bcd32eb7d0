//go:build linux

// Package qemu boots virtual machines in front of the fake cloud of package cloud, without root and without KVM.
//
// A scenario is a few lines, and what the guest did comes back as a verdict:
//
//	v := qemu.Boot(t, qemu.Scenario{
//		OS:     talos.OS{Etcd: true},
//		Helper: nametag,
//		Args:   []string{"talos.hostname.wait=2m"},
//		Cloud:  cloud.Config{Server: cloud.Server{Hostname: "my-server"}},
//	})
//	v.Outcome, v.Names(), v.Member() …
//
// QEMU emulates the processor (TCG), so that this runs where a container does. Each NIC is a -netdev stream on a
// socket pair, every frame of it passes through the cloud in this process. The console and the guest's reports
// (package report) come over a serial port each, QEMU itself is asked and listened to over QMP. A machine has a time-out
// of its own and never outlives its test. When the test fails, all that the console showed is in its log.
//
// What is booted is Debian's cloud kernel, for amd64 or arm64, by QEMU itself or through UEFI, there also as an image that
// the test makes of it. hack/vm-deps fetches it into .cache/vm. Where that or QEMU is missing, Boot skips the test and
// says what to do; under CI=true it fails.
package qemu
