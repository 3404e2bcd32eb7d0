// Package cloud is a fake Hetzner Cloud network in user space: gateways that answer ARP, a DHCP server, and the metadata
// service with its whole document tree, for as many NICs as one server has.
//
// It speaks whole Ethernet frames over a [Port] and does not care what is behind it: a veth pair in a namespace (package
// netns), a virtual machine, or another network stack in the same process ([Pipe]). TCP is gVisor's netstack. Everything
// below it (ARP, neighbour discovery, DHCP) is done here, frame by frame, so that each answer can be late, wrong or
// missing:
//
//	c, err := cloud.New(cloud.Config{
//		Server: cloud.Server{Hostname: "my-server", InstanceID: "42"},
//		Link:   cloud.Link{RTT: 20 * time.Millisecond, Up: cloud.Impairment{Loss: 0.2}},
//		Metadata: []cloud.Phase{
//			{Until: 3 * time.Second, Answer: cloud.Unreachable()},
//			{Until: 5 * time.Second, Answer: cloud.Status(503)},
//		},
//	})
//	err = c.Attach(cloud.NIC{Shape: cloud.Public}, port)
//
// The decisions about loss, duplication, reordering and corruption come from generators seeded by [Config.Seed]: the n-th
// frame of a direction of a NIC always meets the same fate.
package cloud
