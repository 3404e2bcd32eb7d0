//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

// instanceID is the server's.
const instanceID = "42"

// A node is a machine that has just been switched on: its NIC eth0 is down, and no client has left anything behind.
type node struct {
	cloud *cloud.Cloud
	node  *netns.Node
}

// newNode makes a node and a cloud around it.
func newNode(c condition, seed uint64) (n *node, err error) {
	impairment := cloud.Impairment{Loss: c.loss}
	n = new(node)
	n.cloud, err = cloud.New(cloud.Config{
		Server: cloud.Server{Hostname: hostname, InstanceID: instanceID},
		Link:   cloud.Link{RTT: c.rtt, Up: impairment, Down: impairment},
		Seed:   seed,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.node, err = netns.New(netns.Options{}); err != nil {
		return nil, err
	}
	if err := n.node.Do(isolate); err != nil {
		return nil, err
	}
	port, err := n.node.Plug("eth0")
	if err != nil {
		return nil, err
	}
	return n, n.cloud.Attach(cloud.NIC{Name: "eth0", Shape: c.shape}, port)
}

// isolate hides from the clients where they keep things, so that none finds an older lease and none leaves a file on the
// machine: it has the node's own mount namespace for it.
func isolate() error {
	conf, err := peers.ReadFile("peers/dhclient.conf")
	if err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/lib/dhcp", "/var/lib/dhcpcd", "/etc/dhcp"} {
		if _, err := os.Stat(dir); err != nil {
			continue // the machine does not have it, and then nobody writes there
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return &os.PathError{Op: "mount", Path: dir, Err: err}
		}
	}
	// cloud-init does not say which configuration its dhclient is to read.
	if _, err := os.Stat("/etc/dhcp"); err == nil {
		if err := os.WriteFile("/etc/dhcp/dhclient.conf", conf, 0o644); err != nil {
			return err
		}
	}
	// Nobody here is to write it, and somebody would.
	if _, err := os.Stat("/etc/resolv.conf"); err == nil {
		if err := unix.Mount("/dev/null", "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
			return &os.PathError{Op: "mount", Path: "/etc/resolv.conf", Err: err}
		}
	}
	return nil
}

// start starts cmd as the first process of a PID namespace: the kernel ends with it whatever it has started, daemons
// that have left its process group included.
func (n *node) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	return n.node.Start(cmd)
}

func (n *node) close() error {
	var err error
	if n.node != nil {
		err = n.node.Close()
	}
	return errors.Join(err, n.cloud.Close())
}
