package metadata

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
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
)

const (
	// maxBody bounds a body. The whole document has a few KiB; a hundred SSH keys and much vendor data make it longer.
	maxBody = 256 << 10
	// maxHeader bounds status line and headers, those of interim answers and the framing of chunks included.
	maxHeader = 16 << 10
	// maxInterim bounds the 1xx answers before the real one.
	maxInterim = 4
)

// A Client asks a metadata service over one path, one request at a time. With Dial
// set it is ready for use. It is not for several goroutines at once, but for Close.
type Client struct {
	// Dial opens a connection: (*earlynet.Path).DialContext. It is called twice for
	// a request at most: where a connection takes long to come about, a second one
	// is begun beside it, and the first that is there is taken.
	Dial earlynet.DialFunc

	mu     sync.Mutex
	idle   *persistConn // the connection between two exchanges, or nil
	closed bool
}

// An Answer is the body of a 200.
type Answer struct {
	Body []byte
	// Whole says that the service told where the body ends, by a length or by
	// chunks. Where it did not, the connection may have ended anywhere in it.
	Whole bool
	// Reused says that it came over the connection of the answer before it, so that
	// one process of the service gave both.
	Reused bool
}

// Endpoint reads the URL of a service, for a source's Addresses: it must be http, and
// its host an IP address.
func Endpoint(rawURL string) (*url.URL, netip.Addr, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, netip.Addr{}, fmt.Errorf("the endpoint %.80q is no URL", rawURL)
	}
	addr, err := check(u)
	return u, addr, err
}

// check is whether a URL can be asked.
func check(u *url.URL) (netip.Addr, error) {
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil || u.Scheme != "http" {
		return netip.Addr{}, fmt.Errorf("the endpoint %.80q is no http URL with an IP address: names are not resolved here", u.Redacted())
	}
	return addr, nil
}

// Get returns the body of a GET, if it is whole.
func (c *Client) Get(ctx context.Context, rawURL string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("the endpoint %.80q is no URL", rawURL)
	}
	got, err := c.Do(req)
	if err == nil && !got.Whole {
		err = ErrUncertain
	}
	if err != nil {
		return nil, err
	}
	return got.Body, nil
}

// Do makes a request of any kind: with a header, with another method. It takes the
// connection of the answer before it if that is still open, else a new one; where
// the other end had closed it meanwhile, the request is made again over a new one.
// It ends when the request's context does. The error is the context's cause then.
func (c *Client) Do(req *http.Request) (Answer, error) {
	if c.Dial == nil {
		return Answer{}, errNoDial
	}
	if _, err := check(req.URL); err != nil {
		return Answer{}, err
	}
	if req.Header.Get("User-Agent") == "" {
		req = req.Clone(req.Context())
		req.Header.Set("User-Agent", "nametag")
	}
	return c.try(req, c.popIdle(req))
}

// try makes a request over pc, or over a new connection where that is nil.
func (c *Client) try(req *http.Request, pc *persistConn) (Answer, error) {
	ctx := req.Context()
	reused := pc != nil
	if !reused {
		address := dialled(req.URL)
		conn, err := c.connect(ctx, address)
		if err != nil {
			return Answer{}, fmt.Errorf("connecting: %w", plain(ctx, err))
		}
		pc = newPersistConn(conn, address)
	}
	// The end of ctx interrupts a read or write that is under way.
	disarm := context.AfterFunc(ctx, func() { _ = pc.conn.SetDeadline(time.Now()) })
	got, again, err := pc.roundTrip(req)
	got.Reused = reused
	if disarm() && err == nil && again {
		c.putIdle(pc)
		return got, nil
	}
	earlynet.Reset(pc.conn)
	if err != nil && reused && !pc.heard && ctx.Err() == nil {
		return c.try(req, nil) // the other end had closed it while it was idle
	}
	if err != nil {
		return Answer{}, plain(ctx, err)
	}
	return got, nil
}

// dialled is the address for a URL.
func dialled(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// plain says the context's end instead of its symptom, and leaves out the addresses and port numbers of a net.OpError: a
// line that differs each time could not be told from news.
func plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// popIdle returns the idle connection, or nil where there is none that will do. A request with a body could not be made
// again, and gets a new one.
func (c *Client) popIdle(req *http.Request) *persistConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	pc := c.idle
	if pc == nil {
		return nil
	}
	c.idle = nil
	if pc.address != dialled(req.URL) || req.Body != nil && req.Body != http.NoBody {
		earlynet.Reset(pc.conn)
		return nil
	}
	return pc
}

// putIdle keeps a connection for the next exchange.
func (c *Client) putIdle(pc *persistConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		earlynet.Reset(pc.conn)
		return
	}
	c.idle = pc
}

// Close closes the connection that is open between two answers, and one that is in
// use as it becomes idle. It may be called at any time, and again.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.idle != nil {
		earlynet.Reset(c.idle.conn)
		c.idle = nil
	}
}

// A persistConn is a connection that may carry one exchange after the other.
type persistConn struct {
	conn    net.Conn
	address string
	limit   io.LimitedReader // under reader
	read    *bufio.Reader
	heard   bool // since the last request
}

func newPersistConn(conn net.Conn, address string) *persistConn {
	pc := &persistConn{conn: conn, address: address}
	pc.limit.R = conn
	pc.read = bufio.NewReaderSize(&pc.limit, 2<<10)
	return pc
}

// roundTrip makes one exchange. reusable says that the connection may carry another one.
func (pc *persistConn) roundTrip(req *http.Request) (got Answer, reusable bool, err error) {
	pc.heard = false
	if err := req.Write(pc.conn); err != nil {
		return Answer{}, false, fmt.Errorf("asking: %w", err)
	}
	pc.limit.N = maxHeader
	if _, err := pc.read.Peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: closed without a byte", ErrCutShort)
		}
		return Answer{}, false, err
	}
	pc.heard = true
	resp, err := pc.response(req)
	if err != nil {
		return Answer{}, false, pc.explain(err)
	}
	// The connection is not closed here but by try: this only ends the body.
	defer resp.Body.Close()
	if err := acceptable(resp); err != nil {
		earlynet.Reset(pc.conn) // before Body.Close, which would read the rest
		return Answer{}, false, err
	}
	pc.limit.N += maxBody
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		earlynet.Reset(pc.conn)
		return Answer{}, false, pc.explain(err)
	case len(body) > maxBody:
		earlynet.Reset(pc.conn)
		return Answer{}, false, ErrTooLarge
	case pc.read.Buffered() > 0:
		return Answer{}, false, ErrTrailing // a length that is too short gives another valid name
	}
	if looksLikeHTML(body) {
		return Answer{}, false, ErrHTML
	}
	certain := resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0
	if !certain && pc.limit.N <= 0 {
		return Answer{}, false, ErrTooLarge
	}
	return Answer{Body: body, Whole: certain}, certain && !resp.Close, nil
}

func looksLikeHTML(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimPrefix(bytes.TrimSpace(body), []byte("\ufeff")), []byte("<"))
}

// response reads up to the body, past interim answers.
func (pc *persistConn) response(req *http.Request) (*http.Response, error) {
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(pc.read, req)
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
func (pc *persistConn) explain(err error) error {
	var network net.Error
	switch {
	case pc.limit.N <= 0:
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
