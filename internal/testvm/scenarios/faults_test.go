//go:build linux

package scenarios

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/earlynet"
	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/identity/hetzner"
	"github.com/nametag-boot/nametag/internal/testvm"
	"github.com/nametag-boot/nametag/internal/testvm/cloud"
)

// What happens to frames. A right name comes, however long it takes.
func TestFrames(t *testing.T) {
	both := func(i cloud.Impairment) cloud.Config {
		return cloud.Config{Link: cloud.Link{RTT: 5 * time.Millisecond, Up: i, Down: i}, Seed: 11}
	}
	var all []scenario
	for _, percent := range []int{1, 5, 10, 20, 30, 50} {
		all = append(all, scenario{about: fmt.Sprintf("%d %% lost each way", percent), cloud: both(cloud.Impairment{Loss: float64(percent) / 100})})
	}
	all = append(all,
		scenario{about: "half of them twice", cloud: both(cloud.Impairment{Duplicate: 0.5})},
		scenario{about: "all of them twice", cloud: both(cloud.Impairment{Duplicate: 1})},
		scenario{about: "half of them out of order", cloud: both(cloud.Impairment{Reorder: 0.5})},
		scenario{about: "a tenth of them with a bit flipped", cloud: both(cloud.Impairment{Corrupt: 0.1})},
		scenario{about: "a third of them with a bit flipped", cloud: both(cloud.Impairment{Corrupt: 0.33})},
		scenario{about: "everything at once", cloud: both(cloud.Impairment{Loss: 0.15, Duplicate: 0.15, Reorder: 0.15, Corrupt: 0.1})},
		scenario{about: "everything at once, on a private network", cloud: both(cloud.Impairment{Loss: 0.15, Duplicate: 0.15, Reorder: 0.15, Corrupt: 0.1}), lab: []testvm.Option{testvm.NIC("eth0", private)}},
		scenario{about: "half of what the node sends is lost, nothing of what it gets", cloud: cloud.Config{Link: cloud.Link{Up: cloud.Impairment{Loss: 0.5}}}},
		scenario{about: "half of what the node gets is lost, nothing of what it sends", cloud: cloud.Config{Link: cloud.Link{Down: cloud.Impairment{Loss: 0.5}}}},
		scenario{about: "nothing of what the node sends arrives", cloud: cloud.Config{Link: cloud.Link{Up: cloud.Impairment{Loss: 1}}}, bound: time.Second, trouble: []string{"eth0/linklocal: no answer in "}},
		scenario{about: "nothing arrives at the node", cloud: cloud.Config{Link: cloud.Link{Down: cloud.Impairment{Loss: 1}}}, bound: time.Second, trouble: []string{"eth0/linklocal: no answer in "}},
		// One of 30 s, with the back-off and the hedges at their ends, is in package patience.
		scenario{about: "a partition of 2 s", cloud: cloud.Config{Link: cloud.Link{Up: cloud.Impairment{Loss: 1}, Down: cloud.Impairment{Loss: 1}}}, during: heal(2 * time.Second)},
		scenario{about: "a partition of 2 s in one direction", cloud: cloud.Config{Link: cloud.Link{Down: cloud.Impairment{Loss: 1}}}, during: heal(2 * time.Second)},
		scenario{about: "a partition that comes in the middle", cloud: first(200*time.Millisecond, cloud.Silent()), during: func(t *testing.T, l *testvm.Lab) {
			time.Sleep(150 * time.Millisecond)
			if err := l.Cloud.SetLink("eth0", cloud.Link{Up: cloud.Impairment{Loss: 1}}); err != nil {
				t.Error(err)
			}
			heal(time.Second)(t, l)
		}},
	)
	play(t, all)
}

// heal makes the cable a good one after a time.
func heal(after time.Duration) func(*testing.T, *testvm.Lab) {
	return func(t *testing.T, l *testvm.Lab) {
		time.Sleep(after)
		if err := l.Cloud.SetLink("eth0", cloud.Link{}); err != nil {
			t.Error(err)
		}
	}
}

// What DHCP servers do wrong, where DHCP is the only way. TestDHCPFaults in earlynet has what the lease is made of.
func TestDHCP(t *testing.T) {
	rogue := netip.MustParseAddr("172.31.1.66")
	var all []scenario
	for about, c := range map[string]struct {
		servers []cloud.DHCP
		trouble []string
	}{
		"silence":                             {[]cloud.DHCP{{Silent: true}}, []string{"(dhcp)", "no offer"}},
		"an offer without an acknowledgement": {[]cloud.DHCP{{OfferOnly: true}}, []string{"(dhcp)", "no answer from"}},
		"a refusal of what was offered":       {[]cloud.DHCP{{NAK: true}}, []string{"(dhcp)", "refused"}},
		"messages cut off":                    {[]cloud.DHCP{{Mangle: func(b []byte) []byte { return b[:len(b)/2] }}}, []string{"(dhcp)"}},
		"messages of noise":                   {[]cloud.DHCP{{Mangle: func(b []byte) []byte { return bytes.Repeat([]byte{0xa5}, len(b)) }}}, []string{"(dhcp)"}},
		"options that go beyond the message":  {[]cloud.DHCP{{Mangle: func(b []byte) []byte { return append(b[:240:240], 53, 200, 2) }}}, []string{"(dhcp)"}},
		"a lease of no time":                  {[]cloud.DHCP{{Extra: map[uint8][]byte{51: {0, 0, 0, 0}}}}, []string{"(dhcp)", "too short"}},
		"the service's own address as lease":  {[]cloud.DHCP{{Address: netip.MustParsePrefix("169.254.169.254/32")}}, []string{"(dhcp)", "169.254.169.254"}},
		"a lease of 127.0.0.1, then silence":  {[]cloud.DHCP{{Address: netip.MustParsePrefix("127.0.0.1/8"), Mangle: once()}}, []string{"(dhcp): no usable offer after ", "address 127.0.0.1 cannot be used"}},
		"a lease of 127.0.0.1":                {[]cloud.DHCP{{Address: netip.MustParsePrefix("127.0.0.1/8")}}, []string{"(dhcp)", "cannot be used"}},
		"routes that lead nowhere": {
			[]cloud.DHCP{{Routes: []cloud.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("172.31.1.99")}}}},
			[]string{"eth0/dhcp: no answer in "},
		},
		"a rogue server that answers first and never acknowledges": {[]cloud.DHCP{{ID: rogue, OfferOnly: true}, {}}, nil},
		"a rogue server that answers first and refuses":            {[]cloud.DHCP{{ID: rogue, NAK: true}, {}}, nil},
		"a rogue server that answers first with noise":             {[]cloud.DHCP{{ID: rogue, Mangle: func(b []byte) []byte { return b[:100] }}, {}}, nil},
		"a rogue server whose routes lead nowhere": {
			[]cloud.DHCP{{ID: rogue, Address: netip.MustParsePrefix("203.0.113.99/32"), Routes: []cloud.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: rogue}}}, {}}, nil,
		},
		"a server that is silent for a second":        {[]cloud.DHCP{{After: time.Second}}, nil},
		"a lease of 136 years":                        {[]cloud.DHCP{{Extra: map[uint8][]byte{51: {255, 255, 255, 255}}}}, nil},
		"a renewal that is due at once":               {[]cloud.DHCP{{Extra: map[uint8][]byte{58: {0, 0, 0, 0}, 59: {0, 0, 0, 0}}}}, nil},
		"a hundred routes":                            {[]cloud.DHCP{{Extra: map[uint8][]byte{33: bytes.Repeat([]byte{10, 0, 0, 1, 172, 31, 1, 1}, 31)}}}, nil},
		"classless routes that end in the middle":     {[]cloud.DHCP{{Extra: map[uint8][]byte{121: {32, 1, 2, 3}}}}, nil},
		"an MTU of 1 and a mask with holes":           {[]cloud.DHCP{{Extra: map[uint8][]byte{1: {255, 0, 255, 0}, 26: {0, 1}}}}, nil},
		"a hostname option is not what we are called": {[]cloud.DHCP{{Extra: map[uint8][]byte{12: []byte("not-me"), 15: []byte("example.net")}}}, nil},
	} {
		s := scenario{about: about, lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{DHCP: c.servers})}, methods: []earlynet.Method{earlynet.DHCP}, trouble: c.trouble}
		if c.trouble != nil {
			s.bound = 500 * time.Millisecond
		}
		all = append(all, s)
	}
	play(t, all)
	t.Run("with the other methods at hand", func(t *testing.T) {
		for i := range all {
			all[i].methods, all[i].trouble, all[i].bound = nil, nil, 0
		}
		play(t, all)
	})
}

// What the metadata service does wrong: for ever, with the message that says so, and at first, with the right name then.
func TestMetadata(t *testing.T) {
	length := func(n int, body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, body)
	}
	bomb := func() cloud.Behaviour {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		for range 100 {
			_, _ = z.Write(make([]byte, 1<<20))
		}
		_ = z.Close()
		return cloud.All(cloud.Headers("Content-Encoding", "gzip"), cloud.Body(b.String()))
	}
	document := func(b cloud.Behaviour) cloud.Behaviour { return cloud.On("/metadata", b) }
	named := func(name string) cloud.Behaviour {
		return cloud.Document("hostname: \"" + name + "\"\ninstance-id: 42\n")
	}
	for _, c := range []struct {
		about string
		fault cloud.Behaviour
		says  string
	}{
		{"refused", cloud.Refused(), "connection refused"},
		{"a reset in the middle of an answer", document(cloud.Raw("HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\nhostname: my-serv", cloud.Reset)), "metadata: read: connection reset by peer"},
		{"cut short of its length", document(cloud.Raw(length(21, "hostname: my-serv"), cloud.Close)), "metadata: the answer was cut short"},
		{"cut short of its length, and silent", document(cloud.Raw(length(21, "hostname: my-serv"), cloud.Hang)), "no answer in "},
		{"cut short without a length, here and there", document(cutHereAndThere("hostname: myserver" + strings.Repeat("0123456789abcde", 3) + "\ninstance-id: 42")), "does not show that it is whole"},
		{"cut short without a length, always at the same byte", document(cloud.Raw("HTTP/1.1 200 OK\r\n\r\nhostname: my-server\ninstance-id: 4", cloud.Close)), "does not show that it is whole"},
		{"everything cut short without a length, always at the same byte", cloud.Raw("HTTP/1.1 200 OK\r\n\r\n4", cloud.Close), "does not show that it is whole"},
		{"no document, and a name that changes between two reads", cloud.All(document(cloud.Status(404)), cloud.On("/hostname", anotherNameEachTime())), "does not show that it is whole"},
		{"no document, and an id that changes between two reads", cloud.All(document(cloud.Status(404)), cloud.On("/instance-id", anotherIDEachTime())), "the instance id changed"},
		{"closed without a byte", cloud.Raw("", cloud.Close), "closed without a byte"},
		{"silence after the connection", cloud.Silent(), "no answer in "},
		{"a byte a second", cloud.Slow(1), "no answer in "},
		{"an endless body", cloud.Endless(), "the answer is too large"},
		{"100 MiB", hundredMiB(), "the answer is too large"},
		{"a gzip bomb", bomb(), "the answer is compressed"},
		{"a redirect to a file", cloud.Redirect("file:///etc/hostname"), "status 302 (Found), and redirects are not followed"},
		{"a redirect to another host", cloud.Redirect("http://192.0.2.1/hostname"), "redirects are not followed"},
		{"a redirect to itself", cloud.Redirect("http://169.254.169.254/hetzner/v1/metadata/hostname"), "redirects are not followed"},
		{"204", cloud.Status(204), "status 204 (No Content)"},
		{"404", cloud.Status(404), "status 404 (Not Found)"},
		{"429 and come back in a second", cloud.Status(429, "Retry-After", "1"), "status 429 (Too Many Requests), retry after 1s"},
		{"500", cloud.Status(500), "status 500 (Internal Server Error)"},
		{"503", cloud.Status(503), "status 503 (Service Unavailable)"},
		{"HTML", document(cloud.Body("<!doctype html><title>my-server</title>")), "metadata: the answer looks like HTML"},
		{"an empty name", named(""), "hostname: the answer is empty"},
		{"a byte order mark", cloud.All(document(cloud.Status(404)), cloud.On("/hostname", cloud.Body("\ufeffmy-server"))), "a byte that is not ASCII"},
		{"a carriage return in a name", cloud.All(document(cloud.Status(404)), cloud.On("/hostname", cloud.Body("my\r\nserver"))), "a control character (0x0d)"},
		{"a NUL", cloud.All(document(cloud.Status(404)), cloud.On("/hostname", cloud.Body("my-server\x00"))), "a control character (0x00)"},
		{"Unicode", named("bücher"), "a byte that is not ASCII"},
		{"a label of 64 bytes", named(strings.Repeat("a", 64)), "label 1 has 64 bytes, at most 63"},
		{"a name of 254 bytes", named(strings.Repeat("a.", 126) + "ab"), "it has 254 bytes, at most 253"},
		{"a path in a name", named("../../etc/passwd"), "is no host name"},
		{"an address for a name", named("10.0.0.1"), "it is an IPv4 address"},
		{"localhost", named("localhost"), "localhost is no machine's own name"},
		{"no number for an instance id", cloud.Document("hostname: my-server\ninstance-id: my-server\n"), "metadata: the answer is malformed"},
		{"another server's answers", cloud.Other(cloud.Server{Hostname: "your-server", InstanceID: "43"}), `the answer is for instance "43", but this machine's serial is "42"`},
		{"no HTTP at all", cloud.Raw("220 mail.example.com ESMTP\r\n", cloud.Close), "the answer is malformed"},
	} {
		t.Run(c.about, func(t *testing.T) {
			t.Run("for ever", func(t *testing.T) {
				scenario{cloud: always(c.fault), methods: []earlynet.Method{earlynet.LinkLocal}, bound: 400 * time.Millisecond, trouble: []string{c.says}}.play(t)
			})
			t.Run("at first", func(t *testing.T) {
				scenario{cloud: first(60*time.Millisecond, c.fault)}.play(t)
			})
		})
	}
}

// once lets one message through, and nothing of the next ones.
func once() func([]byte) []byte {
	var said atomic.Bool
	return func(b []byte) []byte {
		if said.Swap(true) {
			return nil
		}
		return b
	}
}

// hundredMiB is an answer of that length, which says so.
func hundredMiB() cloud.Behaviour {
	return cloud.Handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "104857600")
		chunk := bytes.Repeat([]byte("a"), 1<<16)
		for range 1600 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
}

// cutHereAndThere ends each answer with the connection, at a byte of its own: two reads that were cut at the same one
// cannot be told from a name, and several paths read at the same time.
func cutHereAndThere(name string) cloud.Behaviour {
	var all []cloud.Behaviour
	for i := range 1000 {
		all = append(all, cloud.Raw("HTTP/1.1 200 OK\r\n\r\n"+name[:1+i%len(name)], cloud.Close))
	}
	return cloud.InTurn(all...)
}

// anotherNameEachTime ends each answer with the connection, and no two are the same.
func anotherNameEachTime() cloud.Behaviour {
	var all []cloud.Behaviour
	for i := range 1000 {
		all = append(all, cloud.Raw(fmt.Sprintf("HTTP/1.1 200 OK\r\n\r\nserver-%d", i), cloud.Close))
	}
	return cloud.InTurn(all...)
}

// anotherIDEachTime has a certain end, and no two are the same.
func anotherIDEachTime() cloud.Behaviour {
	var all []cloud.Behaviour
	for i := range 1000 {
		all = append(all, cloud.Body(strconv.Itoa(i+1)))
	}
	return cloud.InTurn(all...)
}

// What is a right answer though it looks like none.
func TestUnusualButRight(t *testing.T) {
	named := func(name string) cloud.Behaviour {
		return cloud.Document("hostname: " + name + "\ninstance-id: " + id + "\n")
	}
	for about, c := range map[string]struct {
		answer cloud.Behaviour
		name   string
	}{
		"uppercase is kept":                      {named("My-SERVER"), "My-SERVER"},
		"lines that end with CR and LF":          {cloud.Document("hostname: " + name + "\r\ninstance-id: " + id + "\r\n"), name},
		"63 bytes in a label":                    {named(strings.Repeat("a", 63)), strings.Repeat("a", 63)},
		"253 bytes in all":                       {named(strings.Repeat("a.", 126) + "a"), strings.Repeat("a.", 126) + "a"},
		"no certain end, but a key that follows": {cloud.On("/metadata", cloud.Raw("HTTP/1.0 200 OK\r\n\r\nhostname: "+name+"\ninstance-id: "+id+"\nregion: x\n", cloud.Close)), name},
		"no whole document":                      {cloud.On("/metadata", cloud.Status(404)), name},
		"a document without a name":              {cloud.Document("instance-id: " + id + "\n"), name},
		"a document with nothing but the two":    {named(name), name},
		"nothing but the two, the rest missing":  {cloud.All(named(name), cloud.On("/region", cloud.Status(404))), name},
		"nothing but the two, the rest silent":   {cloud.All(named(name), cloud.On("/private-networks", cloud.Silent())), name},
		"a list of networks that is a bomb":      {cloud.All(named(name), cloud.On("/private-networks", cloud.Body("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]"))), name},
		"a service that answers after a second":  {cloud.Delay(time.Second), name},
	} {
		t.Run(about, func(t *testing.T) {
			cfg := always(c.answer)
			cfg.Server = cloud.Server{Hostname: name, InstanceID: id}
			testvm.Start(t, cfg)
			r := identity.Resolver{Source: hetzner.Source(), Link: earlynet.Config{NICs: []string{"eth0"}}}
			got, err := r.Resolve(t.Context())
			if err != nil || got.Hostname != c.name {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// A slow path does not hold a fast one up that comes later.
func TestASlowPathAndThenAFastOne(t *testing.T) {
	slow := cloud.Link{RTT: 4 * time.Second}
	scenario{
		nics: []string{"eth0", "eth1"}, methods: []earlynet.Method{earlynet.LinkLocal},
		lab: []testvm.Option{testvm.NIC("eth0", cloud.NIC{Link: &slow})},
		during: func(_ *testing.T, l *testvm.Lab) {
			time.Sleep(300 * time.Millisecond)
			l.Plug("eth1", cloud.NIC{})
		},
		via: "eth1/linklocal",
	}.play(t)
}
