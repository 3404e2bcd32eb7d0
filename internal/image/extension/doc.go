// Package extension builds nametag's system extension for Talos: a container image of a manifest and one file, the
// helper, at a path that Talos' imager moves into the initramfs. The kernel runs it from there, told by rdinit=.
//
// A stock extension cannot be more than that: the imager moves nothing but firmware, so the helper poses as such; and an
// extension service is no way, for it starts from containerd, long after the name is set.
//
// The same inputs give the same bytes: sorted entries that belong to root, of 1970, with no PAX headers.
package extension

// Name is the extension's, as Talos lists it.
const Name = "nametag"
