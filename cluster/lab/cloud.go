// Package lab has what the auditor looks at, to look at here: an API of Hetzner Cloud and one of Talos that are not the real ones
// but speak to the real clients, clusters of the real etcd, and the real API server of Kubernetes where it is at hand.
package lab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// Token is the one that the fake cloud takes.
const Token = "a-token-of-the-lab"

// A Server is one of the fake cloud.
type Server struct {
	ID      int64
	Name    string
	Status  string // "" is running
	Created time.Time
	IPv4    string
	IPv6    string // a network, such as 2001:db8::/64
	// Private has addresses by the network's id.
	Private map[int64]string
}

// A Cloud speaks the API of Hetzner Cloud as far as servers and networks go, with its pages, its errors and its rate limit.
type Cloud struct {
	// URL is the endpoint for the client.
	URL string

	mu       sync.Mutex
	servers  []Server
	networks map[int64]string
	limited  int // how many requests are refused for the rate limit
	status   int // what every request is answered with, 0 for the truth
	delay    time.Duration
	between  func(page int)
	requests int
}

// NewCloud starts one; close ends it.
func NewCloud(servers ...Server) (c *Cloud, closeIt func()) {
	c = &Cloud{servers: servers, networks: map[int64]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /servers", c.list)
	mux.HandleFunc("PUT /servers/{id}", c.rename)
	mux.HandleFunc("GET /networks", c.listNetworks)
	s := httptest.NewServer(c.authorize(mux))
	c.URL = s.URL
	return c, s.Close
}

// Add adds servers.
func (c *Cloud) Add(servers ...Server) {
	c.change(func() { c.servers = append(c.servers, servers...) })
}

// Delete takes a server away.
func (c *Cloud) Delete(id int64) {
	c.change(func() { c.servers = slices.DeleteFunc(c.servers, func(s Server) bool { return s.ID == id }) })
}

// Rename gives a server another name.
func (c *Cloud) Rename(id int64, name string) {
	c.change(func() {
		for i := range c.servers {
			if c.servers[i].ID == id {
				c.servers[i].Name = name
			}
		}
	})
}

// AddNetwork adds a private network.
func (c *Cloud) AddNetwork(id int64, name string) { c.change(func() { c.networks[id] = name }) }

// Limit refuses so many requests for the rate limit.
func (c *Cloud) Limit(requests int) { c.change(func() { c.limited = requests }) }

// Fail answers every request with a status, 0 with the truth again.
func (c *Cloud) Fail(status int) { c.change(func() { c.status = status }) }

// Delay holds every answer back.
func (c *Cloud) Delay(d time.Duration) { c.change(func() { c.delay = d }) }

// Between is called before a page is given out: what it changes is a change between two pages.
func (c *Cloud) Between(f func(page int)) { c.change(func() { c.between = f }) }

// Requests counts them.
func (c *Cloud) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

func (c *Cloud) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// authorize lets requests through that have the token, unless the cloud is to fail or to be slow.
func (c *Cloud) authorize(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.requests++
		limited, status, delay := c.limited > 0, c.status, c.delay
		if limited {
			c.limited--
		}
		c.mu.Unlock()
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
		switch {
		case status != 0:
			refuse(w, status, map[int]string{401: "unauthorized", 403: "forbidden"}[status], http.StatusText(status))
		case r.Header.Get("Authorization") != "Bearer "+Token:
			refuse(w, http.StatusUnauthorized, "unauthorized", "unable to authenticate")
		case limited:
			w.Header().Set("RateLimit-Limit", "3600")
			w.Header().Set("RateLimit-Remaining", "0")
			w.Header().Set("RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Second).Unix(), 10))
			refuse(w, http.StatusTooManyRequests, "rate_limit_exceeded", "Limit of 3600 requests per hour reached.")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, schema.ErrorResponse{Error: schema.Error{Code: cmp.Or(code, "server_error"), Message: message}})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // the client has gone
}

func number(r *http.Request, key string, without int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(key))
	if err != nil || n < 1 {
		return without
	}
	return n
}

func (c *Cloud) list(w http.ResponseWriter, r *http.Request) {
	page, per := number(r, "page", 1), min(number(r, "per_page", 25), 50)
	c.mu.Lock()
	between := c.between
	c.mu.Unlock()
	if between != nil {
		between(page)
	}
	c.mu.Lock()
	all := slices.Clone(c.servers)
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	body := struct {
		Servers []schema.Server `json:"servers"`
		Meta    schema.Meta     `json:"meta"`
	}{Servers: []schema.Server{}}
	from := min((page-1)*per, len(all))
	for _, s := range all[from:min(from+per, len(all))] {
		body.Servers = append(body.Servers, s.schema())
	}
	body.Meta.Pagination = pagination(page, per, len(all))
	answer(w, http.StatusOK, body)
}

func pagination(page, per, total int) *schema.MetaPagination {
	last := max((total+per-1)/per, 1)
	p := &schema.MetaPagination{Page: page, PerPage: per, PreviousPage: page - 1, LastPage: last, TotalEntries: total}
	if page < last {
		p.NextPage = page + 1
	}
	return p
}

// serverType is most of a server's bytes, as it is in the real API: it comes with its prices everywhere.
var serverType = func() schema.ServerType {
	t := schema.ServerType{ID: 109, Name: "cpx32", Description: "CPX 32", Cores: 4, Memory: 8, Disk: 160, StorageType: "local", CPUType: "shared", Architecture: "x86"}
	for _, location := range []string{"fsn1", "nbg1", "hel1", "ash", "hil", "sin"} {
		price := schema.PricingServerTypePrice{Location: location}
		price.PriceHourly.Net, price.PriceHourly.Gross = "0.0168000000", "0.0199920000000000"
		price.PriceMonthly.Net, price.PriceMonthly.Gross = "10.4900000000", "12.4831000000000000"
		t.Prices = append(t.Prices, price)
	}
	return t
}()

func (s Server) schema() schema.Server {
	out := schema.Server{ID: s.ID, Name: s.Name, Status: cmp.Or(s.Status, "running"), Created: s.Created}
	out.ServerType = serverType
	out.PublicNet.IPv4.IP = s.IPv4
	out.PublicNet.IPv6.IP = s.IPv6
	for network, ip := range s.Private {
		out.PrivateNet = append(out.PrivateNet, schema.ServerPrivateNet{Network: network, IP: ip})
	}
	return out
}

func (c *Cloud) rename(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	var body struct {
		Name string `json:"name"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Name == "" {
		refuse(w, http.StatusUnprocessableEntity, "invalid_input", "invalid input in field 'name'")
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.servers {
		if c.servers[i].ID == id {
			c.servers[i].Name = body.Name
			answer(w, http.StatusOK, map[string]any{"server": c.servers[i].schema()})
			return
		}
	}
	refuse(w, http.StatusNotFound, "not_found", fmt.Sprintf("server with ID '%d' not found", id))
}

func (c *Cloud) listNetworks(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	networks := []schema.Network{}
	for id, name := range c.networks {
		if wanted := r.URL.Query().Get("name"); wanted == "" || wanted == name {
			networks = append(networks, schema.Network{ID: id, Name: name})
		}
	}
	answer(w, http.StatusOK, map[string]any{"networks": networks, "meta": schema.Meta{Pagination: pagination(1, 50, len(networks))}})
}
