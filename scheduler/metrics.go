package scheduler

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what workers do.
type Metrics struct {
	decisions  *prometheus.CounterVec
	modelCalls *prometheus.CounterVec
	toolCalls  *prometheus.CounterVec
	stops      *prometheus.CounterVec
	working    prometheus.Gauge
	recovered  prometheus.Counter
}

// NewMetrics makes the counters; register them as one collector.
func NewMetrics() *Metrics {
	return &Metrics{
		decisions:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_gate_decisions_total", Help: "Decisions of the gate, by kind of effect and outcome."}, []string{"kind", "decision"}),
		modelCalls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_model_calls_total", Help: "Model calls, by model and outcome."}, []string{"model", "outcome"}),
		toolCalls:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_tool_calls_total", Help: "Tool calls, by tool and outcome."}, []string{"tool", "outcome"}),
		stops:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ambit_session_stops_total", Help: "Sessions that became idle, by stop reason."}, []string{"reason"}),
		working:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "ambit_sessions_working", Help: "Sessions that this worker runs now."}),
		recovered:  prometheus.NewCounter(prometheus.CounterOpts{Name: "ambit_sessions_recovered_total", Help: "Sessions found without a worker and woken again."}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.decisions, m.modelCalls, m.toolCalls, m.stops, m.working, m.recovered} {
		c.Collect(ch)
	}
}
