package earlynet_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

// A link is brought up, used, and set as it was.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	network, err := earlynet.Open(ctx, earlynet.Config{
		Destinations: []netip.Addr{netip.MustParseAddr("169.254.169.254")},
		Observer:     func(e earlynet.Event) { fmt.Println(e) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer network.Close()

	for path := range network.Paths() {
		conn, err := path.DialContext(ctx, "tcp", "169.254.169.254:80")
		if err != nil {
			continue // another path may do better
		}
		fmt.Println("reached over", path)
		conn.Close()
		return
	}
	for _, err := range network.Status() {
		fmt.Println(err)
	}
}

// Inside a system that has its network, nothing is touched.
func ExampleHost() {
	ctx := context.Background()
	network, err := earlynet.Host(ctx, earlynet.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer network.Close()
	fmt.Println(<-network.Paths())
	// Output: host
}

// A source of one's own may be tried over any dialer.
func ExampleNewPath() {
	path := earlynet.NewPath(context.Background(), "eth0", earlynet.LinkLocal, nil)
	fmt.Println(path)
	// Output: eth0/linklocal
}
