package observability

import "github.com/prometheus/client_golang/prometheus"

// exporterMetrics are the exporter's numbers. Without a registerer they count
// for nobody.
type exporterMetrics struct {
	rows, batches, failures, rejected prometheus.Counter
	waiting, lag                      prometheus.Gauge
	sendSeconds                       prometheus.Histogram
}

func newExporterMetrics(reg prometheus.Registerer) (*exporterMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &exporterMetrics{
		rows:     counter("ambit_outbox_rows_total", "Rows of the outbox that ClickHouse has acknowledged."),
		batches:  counter("ambit_outbox_batches_total", "Batches of the outbox that ClickHouse has acknowledged."),
		failures: counter("ambit_outbox_failures_total", "Attempts to send a batch that failed."),
		rejected: counter("ambit_outbox_rejected_total", "Rows of the outbox that can never be sent and were set aside."),
		waiting:  gauge("ambit_outbox_waiting_rows", "Rows of the outbox that are in no batch yet."),
		lag:      gauge("ambit_outbox_lag_seconds", "Age of the oldest thing in the outbox; 0 when it is empty."),
		sendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ambit_outbox_send_seconds", Help: "Time to send one batch to ClickHouse.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.rows, m.batches, m.failures, m.rejected, m.waiting, m.lag, m.sendSeconds} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
