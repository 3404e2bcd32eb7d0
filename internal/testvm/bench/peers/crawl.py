"""cloud-init's Hetzner data source as cloud-init itself calls it: DHCP on the first NIC, then the crawl.

Left out is everything around it: ds-identify, the systemd units and their order, the cached object, the rendering of
the network's configuration, and setting the name. The DMI facts are given, as the lab has none.
"""

import ctypes
import logging
import os
import sys

# cloud-init looks in /proc for the dhclient that it has started, under the number that this process has given it.
if ctypes.CDLL(None, use_errno=True).mount(b"proc", b"/proc", b"proc", 0, None) != 0:
    sys.exit("cannot mount /proc: " + os.strerror(ctypes.get_errno()))

from cloudinit import distros, helpers
from cloudinit.sources import DataSourceHetzner

logging.disable(logging.CRITICAL)
DataSourceHetzner.get_hcloud_data = lambda: (True, "42")

paths = helpers.Paths({"cloud_dir": "/run/cloud", "run_dir": "/run/cloud-init"})
distro = distros.fetch("debian")("debian", {}, paths)
source = DataSourceHetzner.DataSourceHetzner({}, distro, paths)
if not source._get_data():
    sys.exit("no data")
print(source.metadata["local-hostname"], flush=True)
