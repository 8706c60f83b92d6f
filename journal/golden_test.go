package journal_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// golden is a journal as some release wrote it, and what it folds to. A file of testdata/golden is never changed: each later release must
// read it. A new event type, or a new version of one, adds a file.
type golden struct {
	Describes string        `json:"describes"`
	Session   id.Session    `json:"session_id"`
	Events    []goldenEvent `json:"events"`
	// Projection is what the events fold to. Its member next belongs to the loop's own test.
	Projection struct {
		LastSeq    int64               `json:"last_seq"`
		Status     journal.Status      `json:"status"`
		StopReason *journal.StopReason `json:"stop_reason"`
		Usage      journal.Usage       `json:"usage"`
		Charged    money.Nanos         `json:"charged"`
		Limits     journal.Limits      `json:"limits"`
	} `json:"projection"`
}

type goldenEvent struct {
	Seq           int64           `json:"seq"`
	ID            id.Event        `json:"id"`
	Type          string          `json:"type"`
	SchemaVersion int             `json:"schema_version"`
	Epoch         int64           `json:"epoch"`
	Step          id.Step         `json:"step_id"`
	CreatedAt     time.Time       `json:"created_at"`
	Payload       json.RawMessage `json:"payload"`
}

func goldens(t *testing.T) map[string]golden {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out := map[string]golden{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		var g golden
		require.NoError(t, json.Unmarshal(b, &g), f)
		out[filepath.Base(f)] = g
	}
	return out
}

func (g golden) events() []journal.Event {
	out := make([]journal.Event, len(g.Events))
	for i, e := range g.Events {
		out[i] = journal.Event{
			ID: e.ID, Type: e.Type, Seq: e.Seq, Session: g.Session, Step: e.Step, Epoch: e.Epoch, SchemaVersion: e.SchemaVersion,
			CreatedAt: e.CreatedAt, Payload: e.Payload,
		}
	}
	return out
}

// readers has one for each type of event, and writes again what it read.
var readers = map[string]func(journal.Event) ([]byte, error){}

func reader[P journal.Payload]() {
	var p P
	readers[p.EventType()] = func(e journal.Event) ([]byte, error) {
		p, err := journal.Decode[P](e)
		if err != nil {
			return nil, err
		}
		return json.Marshal(p)
	}
}

func init() {
	reader[journal.UserMessage]()
	reader[journal.UserInterrupt]()
	reader[journal.AgentMessage]()
	reader[journal.AgentThinking]()
	reader[journal.AgentToolUse]()
	reader[journal.AgentToolResult]()
	reader[journal.StepIntended]()
	reader[journal.StepSettled]()
	reader[journal.GateDecided]()
	reader[journal.SessionCreated]()
	reader[journal.StatusRunning]()
	reader[journal.StatusIdle]()
	reader[journal.StatusRescheduled]()
	reader[journal.StatusTerminated]()
	reader[journal.SessionUsage]()
	reader[journal.SessionError]()
	reader[journal.SessionLimits]()
	reader[journal.SessionQuoted]()
	reader[journal.CheckpointCreated]()
	reader[journal.SandboxStarted]()
	reader[journal.SandboxEnded]()
	reader[journal.ApprovalRequested]()
	reader[journal.ApprovalDecided]()
	reader[journal.Tainted]()
}

func TestOldJournalsAreRead(t *testing.T) {
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			session := journal.Session{ID: g.Session}
			for i, e := range g.events() {
				require.Equal(t, int64(i+1), e.Seq)
				read, known := readers[e.Type]
				require.True(t, known, "event %d: nothing reads a %s", e.Seq, e.Type)
				again, err := read(e)
				require.NoError(t, err)
				requireHolds(t, e.Payload, again, "event "+strconv.FormatInt(e.Seq, 10)+" ("+e.Type+")")
				require.NoError(t, session.Apply(e))
			}
			want := g.Projection
			require.Equal(t, want.LastSeq, session.LastSeq)
			require.Equal(t, want.Status, session.Status)
			require.Equal(t, want.StopReason, session.StopReason)
			require.Equal(t, want.Usage, session.Usage)
			require.Equal(t, want.Charged, session.Charged)
			require.Equal(t, want.Limits, session.Limits)
		})
	}
}

// requireHolds says that everything in was is still in is. A later release may add members, but lose none.
func requireHolds(t *testing.T, was, is []byte, at string) {
	t.Helper()
	var old, now any
	require.NoError(t, json.Unmarshal(was, &old))
	require.NoError(t, json.Unmarshal(is, &now))
	holds(t, old, now, at)
}

func holds(t *testing.T, old, now any, at string) {
	t.Helper()
	o, isObject := old.(map[string]any)
	if !isObject {
		require.Equal(t, old, now, at)
		return
	}
	n, isObject := now.(map[string]any)
	require.True(t, isObject, "%s is no object any more", at)
	for k, v := range o {
		there, ok := n[k]
		require.True(t, ok, "%s lost its member %q", at, k)
		holds(t, v, there, at+"/"+k)
	}
}

// Each type that this release can write stands in a golden journal of the present schema version.
func TestEachTypeStandsInAGoldenJournal(t *testing.T) {
	written := map[string]bool{}
	for _, g := range goldens(t) {
		for _, e := range g.Events {
			if e.SchemaVersion == journal.SchemaVersion {
				written[e.Type] = true
			}
		}
	}
	types := declaredTypes(t)
	require.NotEmpty(t, types)
	for _, eventType := range types {
		require.True(t, written[eventType], "no golden journal has a %s at schema version %d: add a file to testdata/golden", eventType, journal.SchemaVersion)
		require.Contains(t, readers, eventType)
	}
	require.Len(t, readers, len(types))
}

// declaredTypes finds in the source what the methods EventType return.
func declaredTypes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var types []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, isFunc := d.(*ast.FuncDecl)
			if !isFunc || f.Recv == nil || f.Name.Name != "EventType" {
				continue
			}
			literal, isLiteral := f.Body.List[0].(*ast.ReturnStmt).Results[0].(*ast.BasicLit)
			require.True(t, isLiteral)
			s, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			types = append(types, s)
		}
	}
	slices.Sort(types)
	return types
}
