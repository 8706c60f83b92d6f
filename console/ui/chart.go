package ui

import (
	"strconv"
	"strings"

	"ambit.dev/ambit/internal/money"
)

// ChartSeries is one thing whose amounts a chart shows, one for each bucket.
type ChartSeries struct {
	Name   string
	Values []money.Nanos
}

// Total is the sum of the series.
func (s ChartSeries) Total() (sum money.Nanos) {
	for _, v := range s.Values {
		sum += v
	}
	return sum
}

// ChartProps is a chart of amounts over time. It is drawn by the server, as SVG that stretches to its place; what is text stands beside it,
// so that it never does. At most MaxSeries series.
type ChartProps struct {
	// Label says in a sentence what the chart shows.
	Label string
	// Buckets are the labels of the units of time, in order.
	Buckets []string
	Series  []ChartSeries
	// Lines draws a line a series in place of bars upon each other.
	Lines bool
}

// MaxSeries is how many series have a colour of their own.
const MaxSeries = 6

// The drawing's own units.
const (
	chartHeight = 100
	chartStep   = 10
	chartBar    = 7.4
)

// width of the drawing; a chart of nothing is one bucket wide.
func (p ChartProps) width() float64 { return float64(max(1, len(p.Buckets)) * chartStep) }

func (p ChartProps) viewBox() string {
	return "0 0 " + number(p.width()) + " " + strconv.Itoa(chartHeight)
}

// total is the sum of a bucket.
func (p ChartProps) total(bucket int) (sum money.Nanos) {
	for _, s := range p.Series {
		sum += s.Values[bucket]
	}
	return sum
}

// top is the amount at the upper edge: the largest, rounded up to one, two or five of its power of ten.
func (p ChartProps) top() money.Nanos {
	var largest money.Nanos
	for b := range p.Buckets {
		if p.Lines {
			for _, s := range p.Series {
				largest = max(largest, s.Values[b])
			}
		} else {
			largest = max(largest, p.total(b))
		}
	}
	return roundUp(largest)
}

func roundUp(n money.Nanos) money.Nanos {
	if n <= 0 {
		return 0
	}
	for unit := money.Nanos(1); ; unit *= 10 {
		for _, step := range []money.Nanos{1, 2, 5} {
			if unit*step >= n {
				return unit * step
			}
		}
		if unit > 1_000_000_000_000_000_000/10 {
			return n
		}
	}
}

type chartRect struct {
	X, Y, W, H string
	Series     int
	Title      string
}

// bars are the rectangles, from the bottom up.
func (p ChartProps) bars() []chartRect {
	top := p.top()
	if top == 0 {
		return nil
	}
	var out []chartRect
	for b := range p.Buckets {
		y := float64(chartHeight)
		for i, s := range p.Series {
			if s.Values[b] <= 0 {
				continue
			}
			h := float64(s.Values[b]) / float64(top) * chartHeight
			y -= h
			out = append(out, chartRect{
				X: number(float64(b)*chartStep + (chartStep-chartBar)/2), Y: number(y), W: number(chartBar), H: number(max(h, 0.6)), Series: i + 1,
			})
		}
	}
	return out
}

// spots are what the pointer meets: the whole height of a bucket, with its amounts in words.
func (p ChartProps) spots() []chartRect {
	out := make([]chartRect, 0, len(p.Buckets))
	for b, label := range p.Buckets {
		lines := []string{label + ": " + p.total(b).Display()}
		if len(p.Series) > 1 {
			for _, s := range p.Series {
				if s.Values[b] > 0 {
					lines = append(lines, s.Name+" "+s.Values[b].Display())
				}
			}
		}
		out = append(out, chartRect{X: number(float64(b) * chartStep), Y: "0", W: number(chartStep), H: strconv.Itoa(chartHeight), Title: strings.Join(lines, "\n")})
	}
	return out
}

// points is a series as a polyline has it: through the middle of each bucket.
func (p ChartProps) points(s ChartSeries) string {
	top := p.top()
	var out strings.Builder
	for b, v := range s.Values {
		y := float64(chartHeight)
		if top > 0 {
			y -= float64(v) / float64(top) * chartHeight
		}
		if b > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(number(float64(b)*chartStep+chartStep/2.0) + "," + number(y))
	}
	return out.String()
}

// ticks are the labels below: the first, some between, and the last.
func (p ChartProps) ticks() []string {
	n := len(p.Buckets)
	if n <= 4 {
		return p.Buckets
	}
	return []string{p.Buckets[0], p.Buckets[n/3], p.Buckets[2*n/3], p.Buckets[n-1]}
}

func seriesClass(i int) string { return "series-" + strconv.Itoa(min(i, MaxSeries)) }

func number(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(f, 'f', 2, 64), "0"), ".")
}
