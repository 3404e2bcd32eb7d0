package hetzner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

const (
	// maxBody bounds a body. The whole metadata document has a few KiB.
	maxBody = 64 << 10
	// maxHeader bounds status line and headers, those of interim answers and
	// the framing of chunks included.
	maxHeader = 16 << 10
	// maxInterim bounds the 1xx answers before the real one.
	maxInterim = 4
)

// A guard is the [http.RoundTripper] under hcloud-go's client, which reads
// without a bound and takes any 2xx for an answer. It hands on a response only
// when the answer counts, with the whole body in memory, and is an error else.
//
// It speaks HTTP/1.1 over a connection by itself, with net/http's parser but
// without its Transport: that has a pool and two goroutines a connection that
// outlive the exchange, knows of proxies, and does not tell whether a body's
// end was said or merely happened. Here, each connection is used by one
// exchange at a time and read in its goroutine.
type guard struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	idle   []*wire
	closed bool
}

// RoundTrip returns a response that counts, or an [*Error].
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close() // a RoundTripper must; there never is one
	}
	name := path.Base(req.URL.Path)
	got, err := g.agreed(req)
	if err == nil {
		err = check(name, got)
	}
	if err != nil {
		return nil, &Error{Path: name, Err: err}
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        make(http.Header),
		Body:          io.NopCloser(bytes.NewReader(got)),
		ContentLength: int64(len(got)),
		Request:       req,
	}, nil
}

// agreed returns a body whose end is certain, or that was the same twice and is confirmed.
func (g *guard) agreed(req *http.Request) ([]byte, error) {
	first, certain, err := g.exchange(req, g.take())
	if err != nil || certain {
		return first, err
	}
	second, certain, err := g.exchange(req, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("second read, for want of a certain end: %w", err)
	case certain:
		return second, nil
	case !bytes.Equal(first, second):
		return nil, fmt.Errorf("%w: %.40q, then %.40q", ErrUncertain, first, second)
	}
	return second, g.confirm(req, second)
}

// check looks at a body by what it is to be.
func check(name string, body []byte) error {
	body = bytes.TrimSpace(body)
	switch {
	case bytes.HasPrefix(bytes.TrimPrefix(body, []byte("\ufeff")), []byte("<")):
		return ErrHTML
	case name == "private-networks" && len(body) == 0:
		return nil
	case name == "public-ipv4":
		// hcloud-go does not tell a malformed address from none.
		if addr, err := netip.ParseAddr(string(body)); len(body) > 0 && (err != nil || !addr.Is4()) {
			return fmt.Errorf("%w: %.40q is no IPv4 address", ErrMalformed, body)
		}
		return nil
	case len(body) == 0:
		return ErrEmpty
	}
	return nil
}

// exchange makes one request, over w or, if that is nil or has died in the
// meantime, over a fresh connection.
func (g *guard) exchange(req *http.Request, w *wire) (body []byte, certain bool, err error) {
	ctx := req.Context()
	reused := w != nil
	if w == nil {
		conn, err := g.connect(ctx, req)
		if err != nil {
			return nil, false, fmt.Errorf("connecting: %w", plain(ctx, err))
		}
		w = newWire(conn)
	}
	// The end of ctx interrupts a read or write that is under way.
	disarm := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Now()) })
	got, err := w.roundTrip(req)
	if !disarm() || err != nil || !got.reusable {
		earlynet.Reset(w.conn)
		if err != nil && reused && !w.heard && ctx.Err() == nil {
			return g.exchange(req, nil) // the other end had closed it while it was idle
		}
		if err != nil {
			return nil, false, plain(ctx, err)
		}
		return got.body, got.certain, nil
	}
	g.put(w)
	return got.body, got.certain, nil
}

// plain says the context's end instead of its symptom, and leaves out the
// addresses and port numbers of a net.OpError: a line that differs each time
// could not be told from news.
func plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// take returns an idle connection, or nil.
func (g *guard) take() *wire {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.idle)
	if n == 0 {
		return nil
	}
	w := g.idle[n-1]
	g.idle = g.idle[:n-1]
	return w
}

func (g *guard) put(w *wire) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		earlynet.Reset(w.conn)
		return
	}
	g.idle = append(g.idle, w)
}

// Close closes the idle connections, and the others as they become idle.
func (g *guard) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, w := range g.idle {
		earlynet.Reset(w.conn)
	}
	g.idle = nil
}

// A wire is one connection.
type wire struct {
	conn  net.Conn
	limit io.LimitedReader // under reader
	read  *bufio.Reader
	heard bool // since the last request
}

func newWire(conn net.Conn) *wire {
	w := &wire{conn: conn}
	w.limit.R = conn
	w.read = bufio.NewReaderSize(&w.limit, 2<<10)
	return w
}

// An answer is a 200's body.
type answer struct {
	body     []byte
	certain  bool // its end was said
	reusable bool // the connection may carry another exchange
}

func (w *wire) roundTrip(req *http.Request) (answer, error) {
	w.heard = false
	if err := req.Write(w.conn); err != nil {
		return answer{}, fmt.Errorf("asking: %w", err)
	}
	w.limit.N = maxHeader
	if _, err := w.read.Peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: closed without a byte", ErrCutShort)
		}
		return answer{}, err
	}
	w.heard = true
	resp, err := w.response(req)
	if err != nil {
		return answer{}, w.explain(err)
	}
	// The connection is not closed here but by exchange: this only ends the body.
	defer resp.Body.Close()
	if err := acceptable(resp); err != nil {
		earlynet.Reset(w.conn) // before Body.Close, which would read the rest
		return answer{}, err
	}
	w.limit.N += maxBody
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		earlynet.Reset(w.conn)
		return answer{}, w.explain(err)
	case len(body) > maxBody:
		earlynet.Reset(w.conn)
		return answer{}, ErrTooLarge
	case w.read.Buffered() > 0:
		return answer{}, ErrTrailing // a length that is too short gives another valid name
	}
	certain := resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0
	if !certain && w.limit.N <= 0 {
		return answer{}, ErrTooLarge
	}
	return answer{body: body, certain: certain, reusable: certain && !resp.Close}, nil
}

// response reads up to the body, past interim answers.
func (w *wire) response(req *http.Request) (*http.Response, error) {
	for range maxInterim {
		resp, err := http.ReadResponse(w.read, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		_ = resp.Body.Close() // there is none
	}
	return nil, fmt.Errorf("%w: too many interim answers", ErrMalformed)
}

// explain tells our own bound from the other end's fault.
func (w *wire) explain(err error) error {
	var network net.Error
	switch {
	case w.limit.N <= 0:
		return ErrTooLarge
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrCutShort
	case errors.As(err, &network):
		return fmt.Errorf("%w: %w", ErrCutShort, err)
	default: // the parser's words may quote what it read
		return fmt.Errorf("%w: %.80q", ErrMalformed, err.Error())
	}
}

// acceptable looks at what comes before the body.
func acceptable(resp *http.Response) error {
	encoding := resp.Header.Get("Content-Encoding")
	kind := strings.ToLower(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return &StatusError{Code: resp.StatusCode, Wait: retryAfter(resp.Header)}
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		return ErrEncoded
	case strings.HasPrefix(kind, "text/html"), strings.HasPrefix(kind, "application/xhtml"):
		return ErrHTML
	case resp.ContentLength > maxBody:
		return ErrTooLarge
	}
	return nil
}

// retryAfter reads RFC 9110, section 10.2.3: seconds, or a date. A date is
// compared with the service's own: the clock of a machine that boots may be wrong.
func retryAfter(h http.Header) time.Duration {
	const most = 24 * time.Hour
	value := h.Get("Retry-After")
	if s, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, most)
	}
	then, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(0, then.Sub(now)), most)
}
