package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is the other end of a monitor.
type scripted struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func newScripted(t *testing.T) (*scripted, *net.UnixConn) {
	t.Helper()
	ours, theirs, err := socketPair()
	require.NoError(t, err)
	conn, err := net.FileConn(theirs)
	require.NoError(t, err)
	require.NoError(t, theirs.Close())
	t.Cleanup(func() { _ = conn.Close(); _ = ours.Close() })
	return &scripted{t, conn, bufio.NewReader(conn)}, ours
}

func (s *scripted) say(format string, args ...any) { _, _ = fmt.Fprintf(s.conn, format+"\n", args...) }

// hear reads one command and returns its name and id.
func (s *scripted) hear() (string, string) {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return "", ""
	}
	var m struct{ Execute, ID string }
	_ = json.Unmarshal([]byte(line), &m)
	return m.Execute, m.ID
}

func (s *scripted) greet() {
	s.say(`{"QMP": {"version": {}, "capabilities": []}}`)
	_, id := s.hear()
	s.say(`{"return": {}, "id": %q}`, id)
}

func TestMonitor(t *testing.T) {
	s, conn := newScripted(t)
	events := make(chan monitorEvent, 1)
	go s.greet()
	m, err := newMonitor(t.Context(), conn, func(ev monitorEvent) { events <- ev })
	require.NoError(t, err)

	t.Run("answers find their questions, in any order", func(t *testing.T) {
		go func() {
			a, idA := s.hear()
			b, idB := s.hear()
			s.say(`{"event": "STOP", "data": {}, "timestamp": {}}`)
			s.say(`{"return": {"status": %q}, "id": %q}`, b, idB)
			s.say(`{"return": {"status": %q}, "id": %q}`, a, idA)
		}()
		type answer struct{ asked, got string }
		answers := make(chan answer, 2)
		for _, name := range []string{"one", "two"} {
			go func() {
				var out struct{ Status string }
				_ = m.execute(t.Context(), name, nil, &out)
				answers <- answer{name, out.Status}
			}()
		}
		for range 2 {
			a := <-answers
			require.Equal(t, a.asked, a.got)
		}
		require.Equal(t, "STOP", (<-events).Name)
	})
	t.Run("a refusal", func(t *testing.T) {
		go func() {
			_, id := s.hear()
			s.say(`{"error": {"class": "GenericError", "desc": "no such thing"}, "id": %q}`, id)
		}()
		require.ErrorContains(t, m.execute(t.Context(), "bad", nil, nil), "QEMU refused bad: GenericError: no such thing")
	})
	t.Run("no answer", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, m.execute(ctx, "slow", nil, nil), context.DeadlineExceeded)
		_, id := s.hear()
		s.say(`{"return": {}, "id": %q}`, id) // too late, and harmless
	})
	t.Run("the end", func(t *testing.T) {
		go func() {
			s.hear()
			_ = s.conn.Close()
		}()
		require.ErrorIs(t, m.execute(t.Context(), "last", nil, nil), errMonitorGone)
		require.ErrorIs(t, m.execute(t.Context(), "after", nil, nil), errMonitorGone)
		<-m.gone
	})
}

func TestMonitorThatIsNone(t *testing.T) {
	for name, said := range map[string]string{
		"nothing":   "",
		"no JSON":   "HTTP/1.1 400 Bad Request\n",
		"other":     `{"hello": 1}` + "\n",
		"endless":   strings.Repeat("x", maxMonitorLine+10),
		"cut":       `{"QMP": {"version": {}`,
		"then junk": `{"QMP": {}}` + "\nrubbish\n",
	} {
		t.Run(name, func(t *testing.T) {
			s, conn := newScripted(t)
			go func() {
				_, _ = s.conn.Write([]byte(said))
				_ = s.conn.Close()
			}()
			_, err := newMonitor(t.Context(), conn, func(monitorEvent) {})
			require.ErrorIs(t, err, errMonitorGone)
		})
	}
}

func TestImageHashIgnoresHowAFileIsLaidOut(t *testing.T) {
	const size = 1 << 20
	sparse, err := os.Create(t.TempDir() + "/sparse")
	require.NoError(t, err)
	defer sparse.Close() //nolint:errcheck // a test's
	require.NoError(t, sparse.Truncate(size))
	_, err = sparse.WriteAt([]byte("content"), 300_000)
	require.NoError(t, err)
	full, err := os.Create(t.TempDir() + "/full")
	require.NoError(t, err)
	defer full.Close() //nolint:errcheck // a test's
	b := make([]byte, size)
	copy(b[300_000:], "content")
	_, err = full.Write(b)
	require.NoError(t, err)

	one, err := eachBlock(sparse, size, nil)
	require.NoError(t, err)
	mem, two, err := loadMemory(full, size)
	require.NoError(t, err)
	defer mem.Close() //nolint:errcheck // a test's
	require.Equal(t, one, two)
	got := make([]byte, size)
	_, err = mem.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, b, got)
	_, err = mem.WriteAt([]byte("x"), 0)
	require.Error(t, err, "it is sealed")

	_, err = sparse.WriteAt([]byte("C"), 300_000)
	require.NoError(t, err)
	three, err := eachBlock(sparse, size, nil)
	require.NoError(t, err)
	require.NotEqual(t, one, three)
}

func TestTail(t *testing.T) {
	var tl tail
	for i := range 10_000 {
		_, _ = fmt.Fprintf(&tl, "line %d\n", i)
	}
	require.LessOrEqual(t, len(tl.String()), 2*tailBytes)
	require.True(t, strings.HasSuffix(tl.String(), "line 9999"))
}
