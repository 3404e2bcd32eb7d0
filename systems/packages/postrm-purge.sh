#!/bin/sh
set -e
# What nametag remembers goes with it. The name in /etc/hostname stays: it is the system's.
if [ "$1" = purge ]; then
    rm -rf /etc/nametag /var/lib/nametag
fi
