package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/authn/github"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Registry is how registries are spoken to. The zero value takes the credentials that `docker login` and `podman login`
// stored (and GITHUB_TOKEN for ghcr.io), and speaks HTTP only to this machine itself.
type Registry struct {
	Insecure bool           // plain HTTP, and certificates that nobody vouches for
	Keychain authn.Keychain // nil: the usual ones
	// Progress is told how many bytes of a push are there, and how many there are in all; both grow. It may be nil.
	Progress func(done, total int64)
}

func (r Registry) reference(s string) (name.Reference, error) {
	var options []name.Option
	if r.Insecure {
		options = append(options, name.Insecure)
	}
	return name.ParseReference(s, options...)
}

// Check says whether where is the name of an image in a registry, without asking one.
func (r Registry) Check(where string) error {
	_, err := r.reference(where)
	return err
}

func (r Registry) options(ctx context.Context) []remote.Option {
	keychain := r.Keychain
	if keychain == nil {
		keychain = authn.NewMultiKeychain(authn.DefaultKeychain, github.Keychain)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain), remote.WithUserAgent("nametagctl")}
	if r.Insecure {
		t := remote.DefaultTransport.(*http.Transport).Clone()    //nolint:errcheck,forcetypeassert // its documented type
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // what was asked for
		options = append(options, remote.WithTransport(t))
	}
	return options
}

// Push writes the artifact to the registry and returns the reference that pins it.
func (r Registry) Push(ctx context.Context, a Artifact, where string) (pinned string, err error) {
	ref, err := r.reference(where)
	if err != nil {
		return "", err
	}
	digest, err := a.Digest()
	if err != nil {
		return "", err
	}
	options := r.options(ctx)
	told := make(chan struct{})
	if r.Progress == nil {
		close(told)
	} else {
		updates := make(chan v1.Update, 16) // remote closes it, however the push ends
		options = append(options, remote.WithProgress(updates))
		go func() {
			defer close(told)
			for u := range updates {
				if u.Error == nil {
					r.Progress(u.Complete, u.Total)
				}
			}
		}()
	}
	if a.Index != nil {
		err = remote.WriteIndex(ref, a.Index, options...)
	} else {
		err = remote.Write(ref, a.Image, options...)
	}
	<-told
	if err != nil {
		return "", refused(ref, err)
	}
	return ref.Context().Name() + "@" + digest.String(), nil
}

// refused adds what to do about the answers of registries that people meet.
func refused(ref name.Reference, err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("%s: the registry refuses (`docker login %s` or `podman login %s` stores credentials for it): %w",
				ref, ref.Context().RegistryStr(), ref.Context().RegistryStr(), err)
		case http.StatusNotFound:
			return fmt.Errorf("%s: the registry has no such image: %w", ref, err)
		}
	}
	return fmt.Errorf("%s: %w", ref, err)
}
