package httpx

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts requests for Prometheus. A nil *Metrics counts nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	streams  prometheus.Gauge
	cut      prometheus.Counter
}

// NewMetrics registers the counters of one surface ("api", "console") with reg.
func NewMetrics(reg prometheus.Registerer, surface string) (*Metrics, error) {
	labels := prometheus.Labels{"surface": surface}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_http_requests_total", Help: "Requests answered, by route pattern, method and status.", ConstLabels: labels,
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ambit_http_request_seconds", Help: "Time from a request's first byte read to its answer's end.", ConstLabels: labels,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_http_in_flight", Help: "Requests being answered now, streams included.", ConstLabels: labels,
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_http_event_streams", Help: "Event streams open now.", ConstLabels: labels,
		}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_http_event_streams_cut_total", Help: "Event streams cut because their reader was too slow.", ConstLabels: labels,
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.inFlight, m.streams, m.cut} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) begin() func(route, method string, status int, took time.Duration) {
	if m == nil {
		return func(string, string, int, time.Duration) {}
	}
	m.inFlight.Inc()
	return func(route, method string, status int, took time.Duration) {
		m.inFlight.Dec()
		// A path that matched no route is one series, or a scanner would make a series of each guess.
		if route == "" {
			route, method = "none", "any"
		}
		m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
		m.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}

// StreamOpened counts an event stream and returns what is called when it ends; slow says that its reader was cut.
func (m *Metrics) StreamOpened() (ended func(slow bool)) {
	if m == nil {
		return func(bool) {}
	}
	m.streams.Inc()
	return func(slow bool) {
		m.streams.Dec()
		if slow {
			m.cut.Inc()
		}
	}
}
