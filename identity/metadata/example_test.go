package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"

	"github.com/nametag-boot/nametag/identity/metadata"
)

// A service that wants a token, as EC2's does. In a source, Dial is via.DialContext.
func ExampleClient_Do() {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "sesame") })
	mux.HandleFunc("GET /latest/meta-data/hostname", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") == "sesame" {
			fmt.Fprint(w, "web-1")
		}
	})
	service := httptest.NewServer(mux)
	defer service.Close()

	client := metadata.Client{Dial: new(net.Dialer).DialContext}
	defer client.Close()
	ask := func(method, path, token string) string {
		req, err := http.NewRequestWithContext(context.Background(), method, service.URL+path, http.NoBody)
		if err != nil {
			return err.Error()
		}
		if token != "" {
			req.Header.Set("X-Aws-Ec2-Metadata-Token", token)
		}
		answer, err := client.Do(req)
		switch {
		case err != nil:
			return err.Error()
		case !answer.Whole: // half a name is a name too
			return metadata.ErrUncertain.Error()
		}
		return string(answer.Body)
	}
	fmt.Println(ask(http.MethodGet, "/latest/meta-data/hostname", ask(http.MethodPut, "/latest/api/token", "")))
	// Output: web-1
}

// What does not count has a reason that a program can tell.
func ExampleClient_Get() {
	portal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Log in first") }))
	defer portal.Close()

	client := metadata.Client{Dial: new(net.Dialer).DialContext}
	defer client.Close()
	_, err := client.Get(context.Background(), portal.URL+"/latest/meta-data/hostname")
	fmt.Println(errors.Is(err, metadata.ErrHTML), err)
	// Output: true the answer looks like HTML: not the metadata service, or its error page
}
