// Package identity finds out who this machine is, and answers only when it is
// sure.
//
//	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
//	defer cancel()
//	id, err := identity.Resolve(ctx, hetzner.Source())
//
// [Resolve] blocks until a name is proven, the context ends, or it is certain
// that no name can come. It starts from network cards that are down: it brings
// up a minimal link by itself, on every card and by link-local and DHCP at once, asks
// the [Source] over each path that comes up, takes the first valid answer, and
// puts the network back as it was. Inside a system that has its network
// already, [OverHost] asks over that one and touches no link.
//
// A wrong name is worse than no name. What leaves Resolve has passed
// [ValidateHostname], and where the firmware tells the machine's serial number,
// the answer's instance id is that number. Everything else is an error, which
// is retried until the context ends:
//
//	var notHere *identity.NotPresentError
//	var timeout *identity.TimeoutError
//	switch {
//	case errors.As(err, &notHere): // another platform: nothing was sent
//	case errors.As(err, &timeout): // says for each path why there was no name
//	}
//
// While it waits, an observer ([WithObserver]) hears what happens, one [Event]
// per change. The same events are the identity's Timeline.
//
// A cloud is a [Source]: identity/hetzner is one; identity/identitytest has one
// that follows a script, for tests.
package identity
