package oci_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/nametag-boot/nametag/internal/image/oci"
)

// guarded is a registry that asks for a password.
func guarded() http.Handler {
	inside := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "acme" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inside.ServeHTTP(w, r)
	})
}

func TestCredentialsAreThoseOfDockerLogin(t *testing.T) {
	s := httptest.NewServer(guarded())
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	a := oci.Artifact{Image: image(t, layer{"etc/x=c"})}

	_, err := (oci.Registry{}).Push(t.Context(), a, host+"/acme/x:v1")
	if err == nil || !strings.Contains(err.Error(), "docker login "+host) {
		t.Errorf("without credentials: %v", err)
	}
	// base64 of acme:secret
	config := `{"auths":{"` + host + `":{"auth":"YWNtZTpzZWNyZXQ="}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	pinned, err := (oci.Registry{}).Push(t.Context(), a, host+"/acme/x:v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Open(t.Context(), pinned, oci.Registry{}); err != nil {
		t.Error(err)
	}
}

func TestACertificateThatNobodyVouchesForIsTakenOnlyOnRequest(t *testing.T) {
	s := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	where := strings.TrimPrefix(s.URL, "https://") + "/acme/x:v1"
	a := oci.Artifact{Image: image(t, layer{"etc/x=c"})}
	if _, err := (oci.Registry{}).Push(t.Context(), a, where); err == nil {
		t.Error("it was taken")
	}
	r := oci.Registry{Insecure: true}
	if _, err := r.Push(t.Context(), a, where); err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Open(t.Context(), where, r); err != nil {
		t.Error(err)
	}
}

func TestAPushStopsWithItsContext(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	r := oci.Registry{Progress: func(_, _ int64) {}}
	_, err := r.Push(ctx, oci.Artifact{Image: image(t, layer{"etc/x=c"})}, strings.TrimPrefix(s.URL, "http://")+"/acme/x:v1")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
