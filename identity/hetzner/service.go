package hetzner

import (
	"context"
	"net/http"
	"net/url"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity/metadata"
)

// A service is Hetzner's, asked over one path. hcloud-go's own client of it reads without a bound, takes any 2xx for an
// answer, does not know the whole document, and brings Prometheus along.
type service struct {
	metadata.Client
	base *url.URL // of the whole document
}

// newService asks at base.
func newService(base string, dial earlynet.DialFunc) (*service, error) {
	u, _, err := metadata.Endpoint(base)
	if err != nil {
		return nil, err
	}
	return &service{Client: metadata.Client{Dial: dial}, base: u}, nil
}

// ask returns the whole document, or one of the answers below it. Its errors are an [*Error].
func (s *service) ask(ctx context.Context, name string) (metadata.Answer, error) {
	where, called := s.base, "metadata"
	if name != "" {
		where, called = s.base.JoinPath(name), name
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), http.NoBody)
	if err != nil {
		return metadata.Answer{}, &Error{Path: called, Err: err}
	}
	got, err := s.Do(req)
	if err != nil {
		return metadata.Answer{}, &Error{Path: called, Err: err}
	}
	return got, nil
}

// whole returns the text of a single answer whose end is certain.
func (s *service) whole(ctx context.Context, name string) (string, error) {
	got, err := s.ask(ctx, name)
	if err == nil && !got.Whole {
		err = &Error{Path: name, Err: metadata.ErrUncertain}
	}
	return string(got.Body), err
}
