//go:build linux

// Package netns makes network namespaces to test in, for root and for users without rights, and plugs NICs into them
// whose far end is a [cloud.Port].
//
// A test package runs as a whole inside a namespace of its own:
//
//	func TestMain(m *testing.M) { netns.Main(m) }
//
// A program makes one for a command:
//
//	if err := netns.Enter(); err != nil { … } // an unprivileged caller goes on as a child in a user namespace
//	node, err := netns.New(netns.Options{Hostname: "node"})
//	defer node.Close()
//	port, err := node.Plug("eth0")
//	err = c.Attach(cloud.NIC{Name: "eth0"}, port)
//	cmd := exec.Command("nametag", "resolve")
//	err = node.Start(cmd)
//	err = cmd.Wait()
//
// [Plug] makes a veth pair whose far end sits in a second, hidden namespace, in which the kernel answers nothing. [Snap]
// takes down what a namespace and this process hold, so that two states can be compared.
package netns
