package faults

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/instance"
	"ambit.dev/ambit/test/provider"
)

func TestTwoHundredInvokesAtOnceLeaveNothingBehind(t *testing.T) {
	i := instance.Start(t)
	a := i.Account("load")
	burst := func() {
		ids := make([]string, 200)
		var wg sync.WaitGroup
		for n := range ids {
			wg.Go(func() { ids[n] = invoke(t, a, "ambit/scripted", fmt.Sprintf("Hello number %d", n)) })
		}
		wg.Wait()
		for _, id := range ids {
			s := finished(t, a, id, 2*time.Minute)
			require.Equal(t, "end_turn", s.StopReason.Type)
		}
	}
	burst() // pools are filled and code is paged in: what is compared is one burst after another
	before := settle(t, a)
	burst()
	began := time.Now()
	var after map[string]float64
	// Within a minute everything is as it was.
	require.Eventually(t, func() bool {
		after = settle(t, a)
		return after["process_resident_memory_bytes"] <= 1.10*before["process_resident_memory_bytes"] &&
			after["go_goroutines"] <= before["go_goroutines"]+8 && after["process_open_fds"] <= before["process_open_fds"]+8 &&
			after["processes"] <= before["processes"]
	}, 75*time.Second, 2*time.Second, "before %v", before)
	t.Logf("200 invokes at once: before %v, %s later %v", before, time.Since(began).Round(time.Second), after)
}

// settle reads how much the server holds.
func settle(t *testing.T, a *instance.Account) map[string]float64 {
	t.Helper()
	_, body := a.Raw(http.MethodGet, "/metrics", nil)
	figures := map[string]float64{"processes": float64(len(a.Processes("")))}
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case "process_resident_memory_bytes", "go_goroutines", "process_open_fds":
			v, err := strconv.ParseFloat(value, 64)
			require.True(t, ok)
			require.NoError(t, err)
			figures[name] = v
		}
	}
	require.Len(t, figures, 4)
	return figures
}

// TestAStreamCutAThousandTimesIsTheJournal reads a session's events over a connection that breaks at random, resuming each time by the id
// of the last event that it had.
func TestAStreamCutAThousandTimesIsTheJournal(t *testing.T) {
	p := provider.New(t)
	i := instance.Start(t, p.Environment(t)...)
	a := i.Account("stream")
	id := invoke(t, a, "openai/parrot", "Say hello.")
	finished(t, a, id, time.Minute)
	// A second writer: messages keep coming while the reader is cut off again and again.
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(150 * time.Millisecond):
			}
			_, _, _ = a.Try(http.MethodPost, "/v1/sessions/"+id+"/events", map[string]any{"events": []any{map[string]any{
				"type": "user.message", "content": []any{map[string]any{"type": "text", "text": fmt.Sprint("Again ", n)}},
			}}})
		}
	})
	var got []int64
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // it chooses where to cut
	t.Logf("seed %d", seed)
	for cut := range 1000 {
		if cut == 950 {
			close(stop)
			writer.Wait()
		}
		var last int64
		if len(got) > 0 {
			last = got[len(got)-1]
		}
		got = append(got, readUntilCut(t, a, id, last, random.IntN(2048), random.IntN(20))...)
	}
	// The last reading is not cut: it ends when the session is idle.
	finished(t, a, id, time.Minute)
	events := journalOfAll(t, a, id)
	for len(got) < len(events) {
		var last int64
		if len(got) > 0 {
			last = got[len(got)-1]
		}
		more := readUntilCut(t, a, id, last, 1<<30, 2000)
		require.NotEmpty(t, more, "the stream ends at %d, the journal has %d events", last, len(events))
		got = append(got, more...)
	}
	want := make([]int64, len(events))
	for n, e := range events {
		want[n] = e.Seq
	}
	require.Equal(t, want, got, "what a thousand broken streams gave is the journal: no gap, no repeat, in order")
	t.Logf("%d events over 1000 broken streams", len(got))
}

// readUntilCut resumes after the last event and drops the connection after so many bytes or milliseconds; it returns the numbers of the
// events that came whole.
func readUntilCut(t *testing.T, a *instance.Account, id string, last int64, bytes, millis int) []int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second+time.Duration(millis)*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+"/v1/sessions/"+id+"/events/stream?until=never", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+a.Key)
	req.Header.Set("Last-Event-ID", strconv.FormatInt(last, 10))
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // cut on purpose
	require.Equal(t, http.StatusOK, resp.StatusCode)
	time.AfterFunc(time.Duration(millis)*time.Millisecond, cancel)
	var seqs []int64
	var seq int64
	r := bufio.NewReader(io.LimitReader(resp.Body, int64(bytes)))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return seqs // cut: an event whose end did not come is no event
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "id: "):
			seq, err = strconv.ParseInt(line[4:], 10, 64)
			require.NoError(t, err)
		case line == "" && seq > 0:
			seqs, seq = append(seqs, seq), 0
		}
	}
}

func journalOfAll(t *testing.T, a *instance.Account, id string) []event {
	t.Helper()
	var all []event
	path := "/v1/sessions/" + id + "/events?limit=1000"
	for next := path; next != ""; {
		var page struct {
			Data     []event `json:"data"`
			NextPage *string `json:"next_page"`
		}
		require.Equal(t, http.StatusOK, a.Call(http.MethodGet, next, nil, &page))
		all = append(all, page.Data...)
		next = ""
		if page.NextPage != nil {
			next = path + "&page=" + *page.NextPage
		}
	}
	return all
}
