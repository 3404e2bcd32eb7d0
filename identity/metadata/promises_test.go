package metadata

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What the documentation promises. Each test has the name of its sentence.

const service = "http://169.254.169.254/name"

// says is a client of a service that says this, once on each connection, and closes it.
func says(answer string) (c *Client, dials *atomic.Int32) {
	dials = new(atomic.Int32)
	return &Client{Dial: func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return &cannedConn{r: bytes.NewReader([]byte(answer))}, nil
	}}, dials
}

func TestAnAnswerCountsWhenItIsA200ThatCameWholeAndIsNoPage(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for about, c := range map[string]struct {
		answer string
		want   error // nil: it counts, or it is a *StatusError
	}{
		"a body with its length":    {ok + "Content-Length: 4\r\n\r\nname", nil},
		"chunks":                    {ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nname\r\n0\r\n\r\n", nil},
		"no body, and that is said": {ok + "Content-Length: 0\r\n\r\n", nil},
		"a body of 256 KiB":         {ok + "Content-Length: 262144\r\n\r\n" + strings.Repeat("a", 262144), nil},
		"one of a byte more":        {ok + "Content-Length: 262145\r\n\r\n" + strings.Repeat("a", 262145), ErrTooLarge},
		"headers without end":       {ok + strings.Repeat("X: y\r\n", 1<<14), ErrTooLarge},
		"a body that just ends":     {ok + "\r\nname", ErrUncertain},
		"half of a body":            {ok + "Content-Length: 4\r\n\r\nna", ErrCutShort},
		"half of the chunks":        {ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nname\r\n", ErrCutShort},
		"nothing":                   {"", ErrCutShort},
		"more than it says":         {ok + "Content-Length: 2\r\n\r\nname", ErrTrailing},
		"compressed":                {ok + "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nname", ErrEncoded},
		"a page by its type":        {ok + "Content-Type: text/html\r\nContent-Length: 4\r\n\r\nname", ErrHTML},
		"a page by its looks":       {ok + "Content-Length: 6\r\n\r\n<html>", ErrHTML},
		"no HTTP":                   {"name\n", ErrMalformed},
		"no 200, but nothing":       {"HTTP/1.1 204 No Content\r\n\r\n", nil},
		"no 200, but a redirect":    {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", nil},
	} {
		t.Run(about, func(t *testing.T) {
			client, dials := says(c.answer)
			defer client.Close()
			body, err := client.Get(t.Context(), service)
			status, other := errors.AsType[*StatusError](err)
			switch {
			case other != strings.HasPrefix(about, "no 200") || other && status.Code == http.StatusOK:
				t.Errorf("got %.20q, %v", body, err)
			case !errors.Is(err, c.want) && !other, err != nil && body != nil, dials.Load() != 1:
				t.Errorf("got %.20q, %v by %d connections", body, err, dials.Load())
			case err == nil && len(body) != 0 && string(body) != "name" && len(body) != 262144:
				t.Errorf("got %d bytes", len(body))
			}
		})
	}
}

// Do gives it all the same, and says so.
func TestAnAnswerThatJustEndsIsNotWhole(t *testing.T) {
	client, _ := says("HTTP/1.0 200 OK\r\n\r\nname")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, service, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.Do(req); err != nil || got.Whole || got.Reused || string(got.Body) != "name" {
		t.Errorf("got %+v, %v", got, err)
	}
	if len(req.Header) != 0 {
		t.Errorf("the caller's request has %v now", req.Header)
	}
}

func TestAClientThatCannotAskSaysSoWithoutDialling(t *testing.T) {
	if _, err := new(Client).Get(t.Context(), service); err == nil {
		t.Error("the zero Client has an answer")
	}
	for _, at := range []string{"", "://", "https://169.254.169.254/", "http://metadata.example/", "http:///name", "169.254.169.254/name", "\x00"} {
		client, dials := says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nname")
		if body, err := client.Get(t.Context(), at); err == nil || dials.Load() != 0 {
			t.Errorf("%q: %q, %v after %d connections", at, body, err, dials.Load())
		}
		if u, addr, err := Endpoint(at); err == nil {
			t.Errorf("%q is %v at %v", at, u, addr)
		}
	}
	for at, want := range map[string]string{"http://169.254.169.254/x": "169.254.169.254", "http://[fe80::a9fe:a9fe%25eth0]:8080/": "fe80::a9fe:a9fe%eth0"} {
		if _, addr, err := Endpoint(at); err != nil || addr.String() != want {
			t.Errorf("%q: %v, %v", at, addr, err)
		}
	}
}

func TestARequestEndsWhenItsContextDoesWithTheCause(t *testing.T) {
	why := errors.New("SIGTERM")
	for about, dial := range map[string]func(ctx context.Context) (net.Conn, error){
		"while it dials": func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
		"while it waits": func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }() // takes the request, and says nothing
			return near, nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Hour, func() { cancel(why) })
			client := Client{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
			began := time.Now()
			if _, err := client.Get(ctx, service); !errors.Is(err, why) || time.Since(began) != time.Hour {
				t.Errorf("%s: %v after %v", about, err, time.Since(began))
			}
		}) // which has seen that no goroutine outlives it
	}
}

// keeping is a service that leaves its connections open.
type keeping struct {
	dials atomic.Int32
	asked chan *http.Request
}

func (k *keeping) dial(context.Context, string, string) (net.Conn, error) {
	k.dials.Add(1)
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		for r := bufio.NewReader(far); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			k.asked <- req
			if _, err := io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nname"); err != nil {
				return
			}
		}
	}()
	return near, nil
}

func TestTheConnectionOfTheAnswerBeforeIsTaken(t *testing.T) {
	k := &keeping{asked: make(chan *http.Request, 8)}
	client := Client{Dial: k.dial}
	defer client.Close()
	do := func(method, at string, body io.Reader) Answer {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, at, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Token", "t")
		got, err := client.Do(req)
		if err != nil || string(got.Body) != "name" || !got.Whole {
			t.Fatalf("%s %s: %+v, %v", method, at, got, err)
		}
		if asked := <-k.asked; asked.Method != method || asked.Header.Get("X-Token") != "t" || asked.UserAgent() != "nametag" {
			t.Errorf("asked was %s with %v", asked.Method, asked.Header)
		}
		return got
	}
	for i, c := range []struct {
		method, at string
		body       io.Reader
		reused     bool
	}{
		{http.MethodPut, service, http.NoBody, false},
		{http.MethodGet, service, http.NoBody, true},
		{http.MethodGet, "http://169.254.169.254:8080/", http.NoBody, false}, // another service
		{http.MethodPost, "http://169.254.169.254:8080/", strings.NewReader("x"), false},
		{http.MethodGet, "http://169.254.169.254:8080/", http.NoBody, true},
	} {
		if got := do(c.method, c.at, c.body); got.Reused != c.reused {
			t.Errorf("request %d: over the connection before it: %v", i+1, got.Reused)
		}
	}
	if n := k.dials.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

func TestWhereTheOtherEndHasClosedMeanwhileTheRequestIsMadeAgain(t *testing.T) {
	client, dials := says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nname") // once a connection, and then its end
	for range 3 {
		if body, err := client.Get(t.Context(), service); err != nil || string(body) != "name" {
			t.Errorf("got %q, %v", body, err)
		}
	}
	if dials.Load() != 3 {
		t.Errorf("%d connections", dials.Load())
	}
	client.Close()
}

func TestCloseMayBeCalledAtAnyTimeAndAgain(t *testing.T) {
	var conns sync.Map
	client := &Client{Dial: func(context.Context, string, string) (net.Conn, error) {
		conn := &cannedConn{r: bytes.NewReader([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nname"))}
		conns.Store(conn, nil)
		return conn, nil
	}}
	var closers sync.WaitGroup
	closers.Go(func() {
		for range 100 {
			client.Close()
		}
	})
	for range 100 {
		if body, err := client.Get(t.Context(), service); err != nil || string(body) != "name" {
			t.Errorf("got %q, %v", body, err)
		}
	}
	closers.Wait()
	client.Close()
	conns.Range(func(conn, _ any) bool {
		if c, ok := conn.(*cannedConn); !ok || !c.closed.Load() {
			t.Error("a connection is open still")
		}
		return true
	})
}
