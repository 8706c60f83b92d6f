package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

func TestSixteenWritersLeaveNoGap(t *testing.T) {
	b := newBook(t)
	const writers, each = 16, 8
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed []error
	)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				// One, two or three events at a time.
				var entries []journal.Entry
				for k := range i%3 + 1 {
					entries = append(entries, journal.Of(message(fmt.Sprintf("%d/%d/%d", w, i, k))))
				}
				if err := b.append(entries...); err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(failed...))

	events := b.events()
	want := 2 + writers*(1+2+3+1+2+3+1+2) // session.created, the first message, and what the writers wrote
	require.Len(t, events, want)
	place := map[string]int{}
	ids := map[id.Event]bool{}
	for i, e := range events {
		require.Equal(t, int64(i+1), e.Seq)
		require.False(t, ids[e.ID], "an event's id is its own")
		ids[e.ID] = true
		if i > 1 {
			m, err := journal.Decode[journal.UserMessage](e)
			require.NoError(t, err)
			place[m.Content[0].Text] = i
		}
	}
	// What was appended together stands together.
	for w := range writers {
		require.Equal(t, place[fmt.Sprintf("%d/2/0", w)]+1, place[fmt.Sprintf("%d/2/1", w)])
		require.Equal(t, place[fmt.Sprintf("%d/2/1", w)]+1, place[fmt.Sprintf("%d/2/2", w)])
	}
	require.Equal(t, int64(want), b.head().LastSeq)
}

func TestWhatIsRolledBackTakesNoNumber(t *testing.T) {
	b := newBook(t)
	undo := errors.New("undo")
	err := b.locked(func(ctx context.Context, _ pgx.Tx, l *journal.Locked) error {
		_, err := l.Append(ctx, now, journal.Of(message("never")))
		require.NoError(t, err)
		return undo
	})
	require.ErrorIs(t, err, undo)
	require.NoError(t, b.append(journal.Of(message("next"))))
	events := b.events()
	require.Equal(t, int64(3), events[2].Seq)
	m, err := journal.Decode[journal.UserMessage](events[2])
	require.NoError(t, err)
	require.Equal(t, "next", m.Content[0].Text)
}

func TestAStepIsBegunOnceAndSettledOnce(t *testing.T) {
	b := newBook(t)
	step := id.New[id.Step]()
	intended := journal.Entry{Step: step, Payload: journal.StepIntended{Kind: journal.KindModelCall, Name: "test/model", EffectKey: string(step)}}
	settled := journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Outcome: journal.Succeeded, Usage: journal.Usage{InputTokens: 7}, Cost: 42}}

	require.ErrorContains(t, b.append(settled), "is not open", "nothing is settled that was not begun")
	require.NoError(t, b.append(intended))
	require.NoError(t, b.locked(func(ctx context.Context, tx pgx.Tx, _ *journal.Locked) error {
		open, err := journal.OpenSteps(ctx, tx, b.org, b.session)
		require.Len(t, open, 1)
		require.Equal(t, step, open[0].ID)
		return err
	}))
	require.NoError(t, b.append(settled))
	require.ErrorContains(t, b.append(settled), "is not open")

	require.Len(t, b.events(), 4, "what was refused left nothing")
	head := b.head()
	require.Equal(t, int64(1), head.Usage.Steps)
	require.EqualValues(t, 42, head.Charged)
	require.NoError(t, b.tx(func(ctx context.Context, tx pgx.Tx) error {
		got, err := journal.GetStep(ctx, tx, b.org, step)
		require.Equal(t, journal.Succeeded, got.Outcome)
		require.Equal(t, int64(3), got.IntendedSeq)
		require.Equal(t, int64(4), got.SettledSeq)
		return err
	}))
}

func TestAnEffectKeyIsUniqueForEver(t *testing.T) {
	b := newBook(t)
	begin := func(key string) journal.Entry {
		return journal.Entry{Step: id.New[id.Step](), Payload: journal.StepIntended{Kind: journal.KindToolCall, EffectKey: key}}
	}
	require.NoError(t, b.append(begin("key-1")))
	require.ErrorContains(t, b.append(begin("key-1")), "steps_effect_key")
	require.NoError(t, b.append(begin("key-2")))

	// Not in another organisation's session either.
	other := &book{t: t, db: b.db, session: id.New[id.Session]()}
	other.org = dbtest.NewOrg(t, b.db)
	require.NoError(t, other.tx(func(ctx context.Context, tx pgx.Tx) error {
		_, _, err := journal.Create(ctx, tx, now, journal.New{Org: other.org, ID: other.session, Project: "prj_other"})
		return err
	}))
	require.ErrorContains(t, other.append(begin("key-1")), "steps_effect_key")
}

func TestNullCharactersAreReplacedAndNothingElseIs(t *testing.T) {
	b := newBook(t)
	// The second is a backslash followed by the letters u0000: text, not a null character.
	for text, want := range map[string]string{
		"a\x00b": "a\ufffdb", `\u0000`: `\u0000`, `\\` + "\x00": `\\` + "\ufffd", "\x00\x00": "\ufffd\ufffd", `"quoted"\n`: `"quoted"\n`, "ŷ€😀": "ŷ€😀",
	} {
		require.NoError(t, b.append(journal.Of(message(text))))
		events := b.events()
		m, err := journal.Decode[journal.UserMessage](events[len(events)-1])
		require.NoError(t, err)
		require.Equal(t, want, m.Content[0].Text)
	}

	// A step's error goes into a column of its own.
	step := id.New[id.Step]()
	require.NoError(t, b.append(
		journal.Entry{Step: step, Payload: journal.StepIntended{Kind: journal.KindToolCall, EffectKey: string(step)}},
		journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindToolCall, Outcome: journal.Failed, Error: &journal.ErrorDetail{Code: "x", Message: "bad\x00byte"}}},
	))
	require.NoError(t, b.tx(func(ctx context.Context, tx pgx.Tx) error {
		got, err := journal.GetStep(ctx, tx, b.org, step)
		require.Equal(t, "bad\ufffdbyte", got.Error.Message)
		return err
	}))
}

func TestAnyTextComesBackAsItWentIn(t *testing.T) {
	b := newBook(t)
	rapid.Check(t, func(rt *rapid.T) {
		texts := rapid.SliceOfN(rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune{'\\', 'u', '0', '\x00', '"', '\u2028'}))), 1, 4).Draw(rt, "texts")
		var entries []journal.Entry
		for _, text := range texts {
			entries = append(entries, journal.Of(message(text)))
		}
		var events []journal.Event
		require.NoError(rt, b.locked(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
			before := l.LastSeq
			if _, err := l.Append(ctx, now, entries...); err != nil {
				return err
			}
			var err error
			events, err = journal.Events(ctx, tx, b.org, b.session, journal.EventFilter{After: before, Limit: 10})
			return err
		}))
		require.Len(rt, events, len(texts))
		for i, text := range texts {
			m, err := journal.Decode[journal.UserMessage](events[i])
			require.NoError(rt, err)
			runes := []rune(text)
			for k, r := range runes {
				if r == 0 {
					runes[k] = '\ufffd'
				}
			}
			require.Equal(rt, string(runes), m.Content[0].Text)
		}
	})
}

func TestTheHeadIsWhatTheEventsFoldTo(t *testing.T) {
	b := newBook(t)
	step := id.New[id.Step]()
	limits := journal.Limits{MaxSteps: 9}
	require.NoError(t, b.append(
		journal.Of(journal.StatusRunning{}),
		journal.Entry{Step: step, Payload: journal.StepIntended{Kind: journal.KindModelCall, EffectKey: string(step)}},
		journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Outcome: journal.Succeeded, Usage: journal.Usage{InputTokens: 3, OutputTokens: 4}, Cost: 11}},
		journal.Of(journal.SessionLimits{Limits: limits}),
		journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}}),
	))
	head := b.head()
	folded := journal.Session{Org: b.org, ID: b.session}
	for _, e := range b.events() {
		require.NoError(t, folded.Apply(e))
	}
	require.Equal(t, head.Status, folded.Status)
	require.Equal(t, head.StopReason, folded.StopReason)
	require.Equal(t, head.Usage, folded.Usage)
	require.Equal(t, head.Charged, folded.Charged)
	require.Equal(t, head.Limits, folded.Limits)
	require.Equal(t, head.LastSeq, folded.LastSeq)
}

func TestEventsAreListedByNumberAndType(t *testing.T) {
	b := newBook(t)
	for i := range 5 {
		require.NoError(t, b.append(journal.Of(message(fmt.Sprint(i))), journal.Of(journal.StatusRunning{})))
	}
	list := func(f journal.EventFilter) (seqs []int64) {
		require.NoError(t, b.tx(func(ctx context.Context, tx pgx.Tx) error {
			events, err := journal.Events(ctx, tx, b.org, b.session, f)
			for _, e := range events {
				seqs = append(seqs, e.Seq)
			}
			return err
		}))
		return seqs
	}
	require.Equal(t, []int64{3, 4, 5}, list(journal.EventFilter{After: 2, Limit: 3}))
	require.Equal(t, []int64{12, 11}, list(journal.EventFilter{Descending: true, Limit: 2}))
	require.Equal(t, []int64{10, 9}, list(journal.EventFilter{Descending: true, After: 11, Limit: 2}))
	require.Equal(t, []int64{4, 6, 8, 10, 12}, list(journal.EventFilter{Types: []string{"session.status_running"}, Limit: 10}))
	require.Empty(t, list(journal.EventFilter{After: 12, Limit: 10}))
}

func TestAJournalCannotBeRewritten(t *testing.T) {
	b := newBook(t)
	for _, statement := range []string{"UPDATE events SET payload = '{}'", "DELETE FROM events"} {
		err := b.tx(func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, statement)
			return err
		})
		require.ErrorContains(t, err, "permission denied", statement)
	}
}

func TestAnotherOrganisationFindsNothing(t *testing.T) {
	b := newBook(t)
	other := dbtest.NewOrg(t, b.db)
	event := b.events()[0].ID
	require.NoError(t, b.db.InTx(t.Context(), other, func(tx pgx.Tx) error {
		ctx := t.Context()
		// Both by asking as oneself, and by claiming to be the owner: then row-level security alone stands in the way.
		for _, org := range []id.Org{other, b.org} {
			_, err := journal.Get(ctx, tx, org, b.session)
			require.True(t, fault.IsCode(err, "not_found"))
			_, err = journal.Lock(ctx, tx, org, b.session)
			require.True(t, fault.IsCode(err, "not_found"))
			_, err = journal.GetEvent(ctx, tx, org, event)
			require.True(t, fault.IsCode(err, "not_found"))
			events, err := journal.Events(ctx, tx, org, b.session, journal.EventFilter{Limit: 10})
			require.NoError(t, err)
			require.Empty(t, events)
			sessions, err := journal.List(ctx, tx, org, journal.SessionFilter{IncludeArchived: true, Limit: 10})
			require.NoError(t, err)
			require.Empty(t, sessions)
		}
		return nil
	}))
}

func TestAnEventShowsItsPayloadBesideItsOwnMembers(t *testing.T) {
	e := journal.Event{ID: "evt_1", Type: "user.message", Seq: 7, Session: "ses_1", Epoch: 2, CreatedAt: now, Payload: json.RawMessage(`{"content":[]}`)}
	got, err := json.Marshal(e)
	require.NoError(t, err)
	require.Equal(t, `{"id":"evt_1","type":"user.message","seq":7,"session_id":"ses_1","step_id":null,"epoch":2,"created_at":"2026-11-20T12:00:00.000000Z","content":[]}`, string(got)) //nolint:testifylint // the order of the members is a part of it
	for _, empty := range []string{"", "{}"} {
		e.Payload = json.RawMessage(empty)
		got, err = json.Marshal(e)
		require.NoError(t, err)
		require.True(t, json.Valid(got) && !slices.Contains(got, '['), "%s", got)
	}
}
