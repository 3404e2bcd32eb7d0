// Package prometheus stands in for Prometheus' client in what runs on a node. hcloud-go's metadata client can count its
// requests; nobody asks it to there, and the real package, whose variables alone take a millisecond to initialise, would
// be a third of the binary. See node.work.
//
// It has the declarations that hcloud-go's instrumentation needs to compile, and counts nothing.
package prometheus

// DefBuckets are none: nothing is counted.
var DefBuckets []float64

// Metrics, none of which is ever looked at.
type (
	// A Collector is a metric.
	Collector any
	// A Gauge is a metric that goes up and down.
	Gauge struct{}
	// A Counter is a metric that goes up.
	Counter struct{}
	// A CounterVec is a counter for each set of labels.
	CounterVec struct{}
	// A HistogramVec is a histogram for each set of labels.
	HistogramVec struct{}
)

// What metrics are called.
type (
	// GaugeOpts describe a gauge.
	GaugeOpts struct{ Name, Help string }
	// CounterOpts describe a counter.
	CounterOpts struct{ Name, Help string }
	// HistogramOpts describe a histogram.
	HistogramOpts struct {
		Name, Help string
		Buckets    []float64
	}
)

// A Registerer keeps metrics.
type Registerer interface{ Register(Collector) error }

// AlreadyRegisteredError says that there is such a metric.
type AlreadyRegisteredError struct{ ExistingCollector Collector }

// Error implements error.
func (AlreadyRegisteredError) Error() string { return "registered already" }

// NewGauge returns a gauge.
func NewGauge(GaugeOpts) Gauge { return Gauge{} }

// NewCounterVec returns counters.
func NewCounterVec(CounterOpts, []string) *CounterVec { return &CounterVec{} }

// NewHistogramVec returns histograms.
func NewHistogramVec(HistogramOpts, []string) *HistogramVec { return &HistogramVec{} }

// WithLabelValues returns one of the counters.
func (*CounterVec) WithLabelValues(...string) Counter { return Counter{} }

// Inc counts one.
func (Counter) Inc() {}
