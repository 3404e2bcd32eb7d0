# A snapshot with nametag in it, for imageName: a server of its own takes the disk image in its rescue system, and becomes the snapshot.
#
#   export HCLOUD_TOKEN=…    # of the project, to read and write
#   packer init snapshot.pkr.hcl
#   packer build -var image=_out/hcloud-amd64.raw.zst -var name=talos-v1.12.7-nametag snapshot.pkr.hcl

packer {
  required_plugins {
    hcloud = {
      source  = "github.com/hetznercloud/hcloud"
      version = "~> 1"
    }
  }
}

variable "image" {
  type        = string
  description = "The disk image with nametag in it, compressed by zstd: docs/install.md makes it."
}

variable "name" {
  type        = string
  description = "What is in the snapshot: imageName finds it by the label caph-image-name."
}

variable "architecture" {
  type    = string
  default = "amd64"
  validation {
    condition     = contains(["amd64", "arm64"], var.architecture)
    error_message = "The architecture is amd64 or arm64."
  }
}

variable "location" {
  type    = string
  default = "nbg1"
}

locals {
  # The smallest of each architecture: a server made of the snapshot has a disk at least as large as this one's.
  server_type = { amd64 = "cx23", arm64 = "cax11" }
}

source "hcloud" "talos" {
  rescue       = "linux64"
  image        = "debian-13" # never booted: the rescue system is
  server_type  = local.server_type[var.architecture]
  location     = var.location
  ssh_username = "root"

  snapshot_name = var.name
  snapshot_labels = {
    "caph-image-name" = var.name
    "os"              = "talos"
    "architecture"    = var.architecture
  }
}

build {
  sources = ["source.hcloud.talos"]

  provisioner "file" {
    source      = var.image
    destination = "/tmp/talos.raw.zst"
  }

  # In the rescue system only: anywhere else /dev/sda is what runs. A stream that is cut is an error, and no snapshot is made.
  provisioner "shell" {
    inline_shebang = "/bin/bash -euo pipefail"
    inline = [
      "test \"$(hostname)\" = rescue",
      "zstd -dc /tmp/talos.raw.zst | dd of=/dev/sda bs=4M conv=fsync",
    ]
  }
}
