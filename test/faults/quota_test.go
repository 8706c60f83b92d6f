package faults

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/instance"
)

// TestReplicasShareAQuota asks three processes at once for more than a key may have.
func TestReplicasShareAQuota(t *testing.T) {
	const quota, asked = 300, 900 // a minute; five come back a second, and a slice is six
	i := instance.Start(t, "AMBIT_RATE_LIMIT=300")
	urls := []string{i.URL, i.Serve("api"), i.Serve("api")}
	a := i.Account("quota")
	var allowed, refused atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for _, url := range urls {
		there := *a
		there.Instance = &instance.Instance{URL: url}
		for range 8 {
			all.Go(func() {
				for range asked / 24 {
					switch status, body, err := there.Try(http.MethodGet, "/v1/me", nil); {
					case err != nil:
						t.Error(err)
					case status == http.StatusOK:
						allowed.Add(1)
					case status == http.StatusTooManyRequests:
						refused.Add(1)
					default:
						t.Errorf("%d: %s", status, body)
					}
				}
			})
		}
	}
	all.Wait()
	took := time.Since(began)
	t.Logf("%d of %d allowed at three processes in %s", allowed.Load(), asked, took)
	require.Positive(t, refused.Load())
	require.GreaterOrEqual(t, allowed.Load(), int64(quota-3*6))
	require.LessOrEqual(t, allowed.Load(), int64(quota+took.Seconds()*quota/60)+1)
}
