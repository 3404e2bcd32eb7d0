package earlynet

import "net"

// hostDialer dials as any program of the host does.
func hostDialer() DialFunc {
	d := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	return d.DialContext
}
