// Package demo boots a server twice on a fake Hetzner network, without nametag and with it, and shows both.
package demo

import "errors"

// The commands by which the program that shows the demo runs itself: one boot, and the service in it, which stands in for
// etcd and prints the name that it read when it started.
const (
	BootCommand    = "demo-boot"
	ServiceCommand = "demo-service"
)

// ErrInside is returned where a boot of the demo is run by somebody else than the demo.
var ErrInside = errors.New("demo-boot is run by demo")
