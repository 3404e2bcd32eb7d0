//go:build linux

// Package controlplane runs a control plane of Kubernetes on the fake Hetzner cloud: servers that are namespaces of this machine,
// in each of them the real containerd, etcd 3.5, kube-apiserver and kubelet 1.32. A server finds its name as a node does, by
// nametag or without it, and its services start under whatever name the kernel has then. What came of it is read from etcd and from
// the API server.
//
// Three parts of a cluster are test doubles, and say so: the cloud's API and metadata service (packages cluster/lab and
// testvm/cloud), the cloud controller, and the signer of the kubelets' certificates (Controllers).
//
// A server that is a set of namespaces needs root, and control groups. Its programs come from hack/controlplane-deps.
package controlplane
