// Package promhttp stands in for the part of Prometheus' client that hcloud-go's instrumentation needs to compile. See
// the package above.
package promhttp

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// RoundTripperFunc is a function as an [http.RoundTripper].
type RoundTripperFunc func(*http.Request) (*http.Response, error)

// RoundTrip calls it.
func (f RoundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// InstrumentRoundTripperInFlight returns next as it is.
func InstrumentRoundTripperInFlight(_ prometheus.Gauge, next http.RoundTripper) RoundTripperFunc {
	return next.RoundTrip
}

// InstrumentRoundTripperDuration returns next as it is.
func InstrumentRoundTripperDuration(_ *prometheus.HistogramVec, next http.RoundTripper) RoundTripperFunc {
	return next.RoundTrip
}
