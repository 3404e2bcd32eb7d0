// Package oci opens and writes container images, in a registry and in files, without a container engine.
//
// An image is named as the tools of this field do:
//
//	ghcr.io/siderolabs/installer:v1.12.7   in a registry; docker:// may stand in front
//	oci:DIR[:TAG]                          an OCI layout
//	oci-archive:FILE[:TAG]                 the same in a tar archive: podman save --format oci-archive
//	docker-archive:FILE[:NAME:TAG]         what `docker save` writes, and Talos' imager
//	dir:DIR                                what `skopeo copy … dir:DIR` writes
//
// A folder that is a layout and a file that exists need no prefix. What an image is made of stays where it is until it
// is written somewhere: layers are streamed, never held in memory.
//
// Files are written aside and renamed when they are complete, so that a failure leaves what was there before.
package oci
