// Package metadata is a client for the metadata services of clouds: what a source of
// package identity asks with.
//
//	client := metadata.Client{Dial: via.DialContext}
//	defer client.Close()
//	body, err := client.Get(ctx, "http://169.254.169.254/latest/meta-data/hostname")
//
// Such a service is plain HTTP on a link-local address, so whoever answers first on
// the link is believed. What comes in is bounded and checked: an answer counts when
// it is a 200 with a body of at most 256 KiB, not compressed, that is not HTML and
// shows where it ends. Half a name is a name too, so that an answer that just ends is
// [ErrUncertain] for [Client.Get]. No proxy, no redirect and no name resolution is
// involved, and no goroutine outlives a request.
//
// Errors have no addresses and port numbers in them, so that a line which repeats
// itself can be told from news.
//
// It speaks HTTP/1.1 with net/http's parser but without its Transport: that has a pool
// and two goroutines a connection that outlive the exchange, knows of proxies, and does
// not tell whether a body's end was said or merely happened.
package metadata
