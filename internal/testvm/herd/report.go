package herd

import (
	"bytes"
	"fmt"
	"time"
)

// Report is what docs/retry.md says.
type Report struct {
	Servers int
	Rate    int           // of the service, requests a second
	Outage  time.Duration // where there is one
	Now     []Row         // the policy as it is
	Caps    []Choice      // other bounds of the back-off
}

// Row is one situation.
type Row struct {
	Outage Outage
	Limit  Limit
	Note   string
	Figures
}

// Choice is one bound of the back-off, in both situations.
type Choice struct {
	Cap          time.Duration
	Boot, Outage Figures
}

const head = `# How nametag asks again

<!-- Written by "make herd" from a simulation. Do not edit: internal/testvm/herd/report.go has the words. -->

Each path asks by itself. An attempt is one request, for the document that has name and instance id and all the rest.

- **An attempt that fails** (refused, reset, a status other than 200, an answer that does not count) is repeated after a random
  time between nothing and a bound. The bound is 100 ms and doubles up to **10 s** ("full jitter").
- **An attempt that stays silent** is joined by another after 200 ms, then 400 ms, … up to 5 s, a quarter more or less; at most
  three are in flight, and each ends after 10 s. Within an attempt, a connection that does not come about is joined by a second
  one after 75 ms, since the kernel alone would repeat a lost SYN after a second; there is no third one. So a service that does
  not answer at all sees some 12 attempts and at most 24 connections a minute from each path, after the first ten seconds.
- **Retry-After** is honoured up to 30 s, and half as much again at random, so that those who were told the same time come back
  one by one.
- **A change of the network** (a carrier, an address, a new card) ends the wait: back-off and hedging begin anew. An allowance of
  one such restart in two seconds, after five at once, keeps a flapping link from becoming a flood.
- **When the name is proven** nothing more is asked for, unless the document lacks something (region, zone, public address,
  private networks): that is asked for by itself, once, and given up after 100 ms.

## Ten thousand servers at one moment

`

// Markdown is the whole document.
func (r Report) Markdown() []byte {
	var b bytes.Buffer
	b.WriteString(head)
	fmt.Fprintf(&b, "%d servers boot within %d ms and ask one service, which answers %d requests a second (a token bucket, of one second's burst)\n"+
		"and turns the others away; or they have waited while it was away for %s, and it comes back. The simulation runs the real\n"+
		"`identity.Resolve` of every server in virtual time; a round trip takes 1 to 2 ms. With no request wasted it would take\n"+
		"%.0f s. Times count from the moment at which the service was there; the requests of an outage are not among those of the last columns.\n\n",
		r.Servers, r.Servers/1000, r.Rate, short(r.Outage), float64(r.Servers)/float64(r.Rate))
	b.WriteString("| outage before | beyond the rate | req/s in the outage, mean | peak req/s | mean req/s | 50 % named | 99 % | 100 % | requests a server |\n" +
		"| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, row := range r.Now {
		outage := row.Outage.String()
		before := "–"
		if row.Outage != None {
			before = fmt.Sprintf("%.0f", row.Before.Mean)
		}
		if row.Note != "" {
			outage += ", " + row.Note
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %.0f | %s | %s | %s | %.1f |\n", outage, row.Limit, before,
			row.After.Peak, row.After.Mean, seconds(row.Half), seconds(row.Most), seconds(row.All), row.Each)
	}
	b.WriteString("\nThe peak of the first second after a boot is everybody's first attempts, while the bound of the back-off is still small: what makes\n" +
		"one server quick. It is over when the bound has doubled a few times. After an outage there is no such peak: everybody's bound is at\n" +
		"its end, and the servers come back evenly.\n\n## Why 10 s\n\n" +
		"The same, with other bounds; 429 without a time beyond the rate, and connections refused in the outage. The price of a higher bound is paid by the single server:\n" +
		"after a long outage it comes back half the bound late on average.\n\n" +
		"| bound | boot: 99 % | 100 % | requests a server | outage: 99 % | 100 % | requests a server | mean req/s in the outage |\n" +
		"| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, c := range r.Caps {
		fmt.Fprintf(&b, "| %s | %s | %s | %.1f | %s | %s | %.1f | %.0f |\n", short(c.Cap), seconds(c.Boot.Most), seconds(c.Boot.All), c.Boot.Each,
			seconds(c.Outage.Most), seconds(c.Outage.All), c.Outage.Each, c.Outage.Before.Mean)
	}
	b.WriteString("\nAn attempt is one request, so every answer that the service gives is a server's name, and no bound keeps the herd from being served\n" +
		"at the service's rate. A lower one costs the service twice the requests in an outage; a higher one costs the last servers their time.\n\n## Again\n\n" +
		"`make herd` runs it and writes this page. The seed is fixed: the figures are the same every time.\n")
	return b.Bytes()
}

// seconds is a time as it stands in a table.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// short is a round duration without its zeros: 10m, 5s.
func short(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}
