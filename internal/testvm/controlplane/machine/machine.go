//go:build linux

// Package machine is what a server of the lab and the program in it agree on.
package machine

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Config is what a server is told at its start: what the user data and the disk of a real one would hold. It stands in a file,
// [File] below the folder that becomes [Dir] in the server.
type Config struct {
	// Nametag is nametag's policy; empty: the server starts without it, and calls itself something.
	Nametag string
	// Service says that a whole system is around us, which has seen to the hostname: it is taken as it is.
	Service bool
	// Address is the server's own in the private network, Gateway the one neighbour that it has there.
	Address, Gateway string
	// Members are the client URLs of the etcd that the server joins; none: it begins a cluster.
	Members []string

	// Where a server is a set of namespaces: the folder of a Debian's programs, the folder that is its disk, and its name
	// among the control groups. All empty: it is a virtual machine.
	Root, Disk, Group string
	// Kube has the binaries of Kubernetes and etcd, Lab what the lab puts in beside them, the configuration among it.
	Kube, Lab string
}

// Places in a server.
const (
	Dir  = "/opt/lab"  // what the lab puts in
	Kube = "/opt/kube" // etcd, kube-apiserver, kubelet
	File = "machine.json"
	// State is the folder in which a server says how it is doing: a file each, written once.
	State = "/var/lib/lab"
)

// Show is the port at which a virtual machine shows the files of State.
const Show = ":8080"

// The files of State.
const (
	Named   = "named"   // the hostname under which services start
	NoName  = "no-name" // why there is none, and no service starts
	Renamed = "renamed" // the hostname that came later
	Failed  = "failed"  // what the server cannot go on without
)

// Said are all the files of State, of which an earlier boot may have left some.
func Said() []string { return []string{Named, NoName, Renamed, Failed} }

// PauseImage is where a server finds what containerd is to have: no registry is asked.
const (
	PauseImage = "lab.nametag.test/pause:1"
	PauseFile  = "pause.tar"
)

// Write puts the configuration into a folder.
func (c Config) Write(dir string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, File), b, 0o600)
}

// Read takes it out of a folder.
func Read(dir string) (c Config, err error) {
	b, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(b, &c)
}
