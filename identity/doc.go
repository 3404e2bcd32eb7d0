// Package identity finds out who this machine is, and answers only when it is
// sure.
//
//	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
//	defer cancel()
//	id, err := identity.Resolve(ctx, hetzner.Source())
//
// [Resolve] blocks until a name is proven, the context ends, or it is certain
// that no name can come. It starts from network cards that are down: it brings
// up a minimal link by itself, on every card and by link-local and DHCP at once,
// asks the [Source] over each path that comes up, takes the first valid answer,
// and puts the network back as it was. A [Resolver] says otherwise where that is
// wanted: with Host it asks over the network that a system has already, and
// touches no link; OnEvent hears what happens, one [Event] per change, and OnName
// has the name the moment it is proven.
//
// A wrong name is worse than no name. What leaves Resolve has passed
// [ValidateHostname], came in one piece with an instance id, and that id is this
// machine's by the firmware's serial number (see [Proof] for what else may say
// so). Everything else is an error, which is retried until the context ends:
//
//	var notHere *identity.NotPresentError
//	var unproven *identity.UnprovenError
//	var timeout *identity.TimeoutError
//	switch {
//	case errors.As(err, &notHere): // another platform: nothing was sent
//	case errors.As(err, &timeout): // says for each path why there was no name
//	case errors.As(err, &unproven): // no serial number: nothing was sent
//	}
//
// A cloud is a [Source]: identity/hetzner is one, identity/metadata has what others
// ask with, and identity/identitytest one that follows a script, for tests.
package identity
