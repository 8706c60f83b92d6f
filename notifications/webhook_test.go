package notifications

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/seal"
)

// receiver is an endpoint that keeps what it gets and answers as it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []received
	status int
	answer string
	hang   chan struct{}
}

type received struct {
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{status: 204}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.got = append(r.got, received{req.Header, body})
		status, answer, hang := r.status, r.answer, r.hang
		r.mu.Unlock()
		if hang != nil {
			select {
			case <-hang:
			case <-req.Context().Done():
			}
			return
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answers(status int, answer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.answer = status, answer
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

type hooksFixture struct {
	db       *postgres.DB
	owner    string
	hands    *clock.Offset
	sealer   *seal.Sealer
	hooks    *Webhooks
	disabled []Webhook
	org      id.Org
	by       principal.Principal
}

func newHooks(t *testing.T) *hooksFixture {
	t.Helper()
	f := &hooksFixture{hands: clock.NewOffset(0)}
	f.db, f.owner = dbtest.NewWithOwner(t)
	var err error
	f.sealer, err = seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	f.hooks = f.service(egress.Config{AllowLoopback: true})
	f.org, f.by = f.newOrg(t)
	return f
}

func (f *hooksFixture) service(cfg egress.Config) *Webhooks {
	return NewWebhooks(WebhookDeps{
		DB: f.db, Sealer: f.sealer, Clock: f.hands, Logger: slog.New(slog.DiscardHandler), Client: egress.New(cfg),
		OnDisabled: func(_ context.Context, _ pgx.Tx, w Webhook) error { f.disabled = append(f.disabled, w); return nil },
	})
}

func (f *hooksFixture) newOrg(t *testing.T) (id.Org, principal.Principal) {
	t.Helper()
	org := id.New[id.Org]()
	require.NoError(t, f.db.InTx(t.Context(), org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'Org', $2, now(), now())", org, strings.ReplaceAll(string(org), "_", "-"))
		return err
	}))
	return org, principal.Principal{Kind: principal.User, ID: string(id.New[id.User]()), Org: org}
}

func (f *hooksFixture) in(t *testing.T, fn func(tx pgx.Tx) error) {
	t.Helper()
	require.NoError(t, f.db.InTx(t.Context(), f.org, fn))
}

func (f *hooksFixture) create(t *testing.T, url string, types ...string) (hook Webhook, secret string) {
	t.Helper()
	f.in(t, func(tx pgx.Tx) (err error) {
		hook, secret, err = f.hooks.CreateTx(t.Context(), tx, f.by, CreateWebhook{URL: url, EventTypes: types})
		return err
	})
	return hook, secret
}

func (f *hooksFixture) publish(t *testing.T, eventType string, data any) {
	t.Helper()
	f.in(t, func(tx pgx.Tx) error { return PublishTx(t.Context(), tx, f.org, eventType, data) })
}

// round looks once and waits for all that it began.
func (f *hooksFixture) round(t *testing.T) {
	t.Helper()
	require.NoError(t, f.hooks.runOnce(t.Context()))
	f.hooks.running.Wait()
}

func (f *hooksFixture) get(t *testing.T, hook id.Webhook) (w Webhook) {
	t.Helper()
	f.in(t, func(tx pgx.Tx) (err error) { w, err = f.hooks.GetTx(t.Context(), tx, f.org, hook); return err })
	return w
}

func (f *hooksFixture) deliveries(t *testing.T, hook id.Webhook) (list []Delivery) {
	t.Helper()
	f.in(t, func(tx pgx.Tx) (err error) {
		list, err = f.hooks.DeliveriesTx(t.Context(), tx, f.org, hook, ListDeliveries{Limit: 100})
		return err
	})
	return list
}

// verify checks a message as a receiver does that was written against the specification alone.
func verify(t *testing.T, r received, secret string) {
	t.Helper()
	at, err := strconv.ParseInt(r.header.Get("webhook-timestamp"), 10, 64)
	require.NoError(t, err)
	want, err := Sign([]string{secret}, r.header.Get("webhook-id"), time.Unix(at, 0), r.body)
	require.NoError(t, err)
	require.Contains(t, strings.Fields(r.header.Get("webhook-signature")), want)
}

func TestTheSignatureIsThatOfTheSpecification(t *testing.T) {
	// The example of the specification's reference implementations.
	got, err := Sign([]string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	require.NoError(t, err)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", got)
	_, err = Sign([]string{"whsec_%%%"}, "m", time.Unix(0, 0), nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "%%%")
}

func TestAnEventArrivesSignedOnceAfterItsTransaction(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	hook, secret := f.create(t, r.URL+"/hook", BudgetThreshold)
	require.True(t, strings.HasPrefix(secret, "whsec_"))
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	require.NoError(t, err)
	require.Len(t, raw, 32)

	f.publish(t, BudgetThreshold, map[string]any{"type": "budget", "id": "bud_1", "project_id": nil})
	f.publish(t, InvitationCreated, map[string]any{"type": "invitation", "id": "inv_1"}) // not subscribed to
	require.ErrorIs(t, f.db.InTx(t.Context(), f.org, func(tx pgx.Tx) error {
		require.NoError(t, PublishTx(t.Context(), tx, f.org, BudgetThreshold, map[string]any{"id": "undone"}))
		return io.EOF
	}), io.EOF)
	f.round(t)
	f.round(t)
	got := r.all()
	require.Len(t, got, 1)
	verify(t, got[0], secret)
	var m message
	require.NoError(t, json.Unmarshal(got[0].body, &m))
	require.Equal(t, BudgetThreshold, m.Type)
	require.Equal(t, got[0].header.Get("webhook-id"), m.ID)
	require.JSONEq(t, `{"type":"budget","id":"bud_1","project_id":null}`, string(m.Data))
	require.Equal(t, "application/json", got[0].header.Get("Content-Type"))

	list := f.deliveries(t, hook.ID)
	require.Len(t, list, 1)
	require.Equal(t, Delivered, list[0].Status)
	require.Len(t, list[0].Attempts, 1)
	require.Equal(t, 204, list[0].Attempts[0].Status)
	require.Nil(t, list[0].NextAttemptAt)
}

func TestAFailureIsTriedAgainOnScheduleUnderItsID(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	hook, secret := f.create(t, r.URL, AllEvents)
	r.answers(500, "no "+strings.Repeat("é", 2000)+"\x00\xff")
	f.publish(t, InvitationCreated, map[string]any{"id": "inv_1"})
	for i := range len(retries) + 1 {
		f.round(t)
		require.Len(t, r.all(), i+1)
		f.round(t)
		require.Len(t, r.all(), i+1, "not before its time")
		if i < len(retries) {
			require.Equal(t, Pending, f.deliveries(t, hook.ID)[0].Status)
			f.hands.Advance(retries[i] + retries[i]/5 + time.Second)
		}
	}
	f.hands.Advance(48 * time.Hour)
	f.round(t)
	require.Len(t, r.all(), len(retries)+1, "the attempts are bounded")
	d := f.deliveries(t, hook.ID)[0]
	require.Equal(t, Failed, d.Status)
	require.Len(t, d.Attempts, len(retries)+1)
	require.Equal(t, "it answered 500", d.Attempts[0].Error)
	require.LessOrEqual(t, len(d.Attempts[0].Response), 1024)
	for _, m := range r.all() {
		verify(t, m, secret)
		require.Equal(t, string(d.Event), m.header.Get("webhook-id"))
	}
	require.NotNil(t, f.get(t, hook.ID).FailingSince)

	r.answers(200, "ok")
	f.in(t, func(tx pgx.Tx) error {
		again, err := f.hooks.RedeliverTx(t.Context(), tx, f.org, hook.ID, d.ID)
		require.NotEqual(t, d.ID, again.ID)
		require.Equal(t, d.Event, again.Event)
		return err
	})
	f.round(t)
	require.Equal(t, Delivered, f.deliveries(t, hook.ID)[0].Status)
	require.Nil(t, f.get(t, hook.ID).FailingSince)
}

func TestAnEndpointThatHangsKeepsNoOtherWaiting(t *testing.T) {
	f, bad, good := newHooks(t), newReceiver(t), newReceiver(t)
	bad.hang = make(chan struct{})
	hanging, _ := f.create(t, bad.URL, AllEvents)
	f.create(t, good.URL, AllEvents)
	const events = 40
	for i := range events {
		f.publish(t, InvitationCreated, map[string]any{"id": i})
	}
	f.hooks.Start(t.Context())
	require.Eventually(t, func() bool { return len(good.all()) == events }, 10*time.Second, 5*time.Millisecond, "%d of %d", len(good.all()), events)
	require.LessOrEqual(t, len(bad.all()), share, "it has its share and no more")
	close(bad.hang)
	bad.mu.Lock()
	bad.hang = nil
	bad.mu.Unlock()
	require.Eventually(t, func() bool {
		for _, d := range f.deliveries(t, hanging.ID) {
			if d.Status != Delivered {
				return false
			}
		}
		return true
	}, 10*time.Second, 20*time.Millisecond)
	require.NoError(t, f.hooks.Stop(t.Context()))
}

func TestAStopBreaksOffWhatHangsAndItIsTakenUpAgain(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	r.hang = make(chan struct{})
	hook, _ := f.create(t, r.URL, AllEvents)
	f.publish(t, InvitationCreated, map[string]any{})
	f.hooks.Start(t.Context())
	require.Eventually(t, func() bool { return len(r.all()) == 1 }, 10*time.Second, 5*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = f.hooks.Stop(ctx)
	require.Equal(t, Pending, f.deliveries(t, hook.ID)[0].Status)
	require.Empty(t, f.deliveries(t, hook.ID)[0].Attempts, "it was not the endpoint's failure")

	close(r.hang)
	r.mu.Lock()
	r.hang = nil
	r.mu.Unlock()
	f.hooks = f.service(egress.Config{AllowLoopback: true})
	f.hands.Advance(deliveryClaim + time.Second)
	f.round(t)
	require.Equal(t, Delivered, f.deliveries(t, hook.ID)[0].Status)
}

func TestAnEndpointThatFailsForDaysIsDisabledWithANotice(t *testing.T) {
	f, r, other := newHooks(t), newReceiver(t), newReceiver(t)
	hook, _ := f.create(t, r.URL, InvitationCreated)
	f.create(t, other.URL, WebhookDisabled)
	r.answers(500, "")
	f.publish(t, InvitationCreated, map[string]any{"id": 1})
	f.round(t)
	f.hands.Advance(DisableAfter - time.Hour)
	f.publish(t, InvitationCreated, map[string]any{"id": 2})
	f.round(t)
	require.Equal(t, WebhookActive, f.get(t, hook.ID).Status)
	f.hands.Advance(2 * time.Hour)
	f.round(t)
	now := f.get(t, hook.ID)
	require.Equal(t, WebhookOff, now.Status)
	require.Equal(t, DisabledFailing, now.DisabledReason)
	require.Len(t, f.disabled, 1)
	require.Equal(t, hook.ID, f.disabled[0].ID)
	for _, d := range f.deliveries(t, hook.ID) {
		require.NotEqual(t, Pending, d.Status, "nothing waits for it any more")
	}
	f.round(t)
	require.Len(t, other.all(), 1, "the other endpoint hears of it")

	f.in(t, func(tx pgx.Tx) error {
		_, err := f.hooks.TestTx(t.Context(), tx, f.org, hook.ID)
		require.Equal(t, "state_conflict", fault.As(err).Code)
		active := WebhookActive
		now, err = f.hooks.UpdateTx(t.Context(), tx, f.org, hook.ID, UpdateWebhook{Status: &active})
		return err
	})
	require.Equal(t, WebhookActive, now.Status)
	require.Nil(t, now.FailingSince)
	r.answers(410, "")
	f.publish(t, InvitationCreated, map[string]any{"id": 3})
	f.round(t)
	require.Equal(t, DisabledGone, f.get(t, hook.ID).DisabledReason, "410 ends it at once")
}

func TestASecretIsSealedAndTwoAreValidWhileRotating(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	hook, old := f.create(t, r.URL, AllEvents)
	var secret string
	f.in(t, func(tx pgx.Tx) (err error) {
		hook, secret, err = f.hooks.RotateSecretTx(t.Context(), tx, f.org, hook.ID, time.Hour)
		return err
	})
	require.NotEqual(t, old, secret)
	require.EqualValues(t, 2, hook.Version)
	conn, err := pgx.Connect(t.Context(), f.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // read only
	var text string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT encode(sealed_secret, 'escape') || encode(sealed_previous, 'escape') || w::text FROM webhooks w").Scan(&text))
	for _, s := range []string{old, secret} {
		require.NotContains(t, text, strings.TrimPrefix(s, "whsec_")[:12])
	}

	f.publish(t, InvitationCreated, map[string]any{})
	f.round(t)
	verify(t, r.all()[0], old)
	verify(t, r.all()[0], secret)
	f.hands.Advance(2 * time.Hour)
	f.publish(t, InvitationCreated, map[string]any{})
	f.round(t)
	verify(t, r.all()[1], secret)
	require.Len(t, strings.Fields(r.all()[1].header.Get("webhook-signature")), 1, "the old one has ended")
}

func TestNothingInsideIsReached(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	hook, _ := f.create(t, r.URL, AllEvents)
	strict := f.service(egress.Config{})
	for _, url := range []string{
		"http://example.com/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://169.254.169.254/latest", "https://10.0.0.1/",
		"https://2130706433/", "https://user:pw@example.com/", "ftp://example.com/", "example.com", "", "https://example.com:22/", "https://x/",
	} {
		require.Error(t, f.db.InTx(t.Context(), f.org, func(tx pgx.Tx) error {
			_, _, err := strict.CreateTx(t.Context(), tx, f.by, CreateWebhook{URL: url, EventTypes: []string{AllEvents}})
			require.Equal(t, "/url", fault.As(err).Fields[0].Pointer, url)
			return err
		}), url)
	}
	// One that was made before, or whose name has come to point inside, is refused at the dial, and the attempt says so.
	f.hooks = strict
	f.publish(t, InvitationCreated, map[string]any{})
	f.round(t)
	require.Empty(t, r.all())
	require.Contains(t, f.deliveries(t, hook.ID)[0].Attempts[0].Error, "this machine")
}

func TestARedirectIsNotFollowed(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	hook, _ := f.create(t, r.URL, AllEvents)
	r.answers(302, "")
	f.publish(t, InvitationCreated, map[string]any{})
	f.round(t)
	require.Len(t, r.all(), 1)
	require.Contains(t, f.deliveries(t, hook.ID)[0].Attempts[0].Error, "redirects are not followed")
}

func TestOnlyItsOwnOrganisationAndProjectHears(t *testing.T) {
	f, mine, theirs, project := newHooks(t), newReceiver(t), newReceiver(t), newReceiver(t)
	prj := id.New[id.Project]()
	f.in(t, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES ($1, $2, 'P', 'p', now(), now())", f.org, prj)
		require.NoError(t, err)
		_, _, err = f.hooks.CreateTx(t.Context(), tx, f.by, CreateWebhook{Project: prj, URL: project.URL, EventTypes: []string{AllEvents}})
		return err
	})
	hook, _ := f.create(t, mine.URL, AllEvents)
	first := f.org
	f.org, f.by = f.newOrg(t)
	f.create(t, theirs.URL, AllEvents)
	require.ErrorContains(t, f.db.InTx(t.Context(), f.org, func(tx pgx.Tx) error {
		_, err := f.hooks.GetTx(t.Context(), tx, f.org, hook.ID)
		return err
	}), fault.NotFound().Message)
	f.in(t, func(tx pgx.Tx) error {
		// An event in another organisation's name finds nobody who listens, as its endpoints can't be seen from here.
		return PublishTx(t.Context(), tx, first, InvitationCreated, map[string]any{"id": "forged"})
	})
	f.org = first
	f.publish(t, InvitationCreated, map[string]any{"id": "inv"})
	f.publish(t, InvitationCreated, map[string]any{"id": "inv", "project_id": prj})
	f.publish(t, InvitationCreated, map[string]any{"id": "inv", "project_id": id.New[id.Project]()})
	f.round(t)
	require.Len(t, mine.all(), 3)
	require.Len(t, project.all(), 1)
	require.Empty(t, theirs.all())
}

func TestWhatIsNotPublished(t *testing.T) {
	f := newHooks(t)
	for name, try := range map[string]struct {
		event string
		data  any
	}{
		"an unknown type": {"budget.exploded", map[string]any{}}, "the test": {webhookTest, map[string]any{}}, "no object": {InvitationCreated, []int{1}},
		"nothing": {InvitationCreated, nil}, "too much": {InvitationCreated, map[string]any{"x": strings.Repeat("x", maxEventData)}}, "a channel": {InvitationCreated, make(chan int)},
	} {
		require.Error(t, f.db.InTx(t.Context(), f.org, func(tx pgx.Tx) error { return PublishTx(t.Context(), tx, f.org, try.event, try.data) }), name)
	}
	for _, in := range []CreateWebhook{
		{URL: "https://example.com"},
		{URL: "https://example.com", EventTypes: []string{"webhook.test"}},
		{URL: "https://example.com", EventTypes: []string{"session.*"}},
		{URL: "https://example.com", EventTypes: []string{AllEvents}, Description: strings.Repeat("x", 501)},
		{URL: "https://example.com/" + strings.Repeat("x", 3000), EventTypes: []string{AllEvents}},
	} {
		require.Error(t, f.db.InTx(t.Context(), f.org, func(tx pgx.Tx) error {
			_, _, err := f.hooks.CreateTx(t.Context(), tx, f.by, in)
			require.Equal(t, fault.Invalid, fault.As(err).Kind)
			return err
		}))
	}
}

func TestAMailWithANameIsQueuedOnce(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		require.NoError(t, f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
			return f.mail.SendTx(t.Context(), tx, Mail{Kind: "alert", To: "ada@example.com", Subject: "80%", Text: "t", Once: "org_1/bud_1/2026-11/80"})
		}))
	}
	f.queue(t, f.mail, "another")
	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Len(t, f.smtp.Messages(), 2)
}

func TestOldEventsAreDeletedWithTheirDeliveries(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	hook, _ := f.create(t, r.URL, AllEvents)
	f.publish(t, InvitationCreated, map[string]any{})
	f.round(t)
	require.Len(t, f.deliveries(t, hook.ID), 1)
	f.hands.Advance(eventsKept + time.Hour)
	f.round(t)
	require.Empty(t, f.deliveries(t, hook.ID))
}

func TestASessionThatComesToRestIsToldOf(t *testing.T) {
	f, r := newHooks(t), newReceiver(t)
	session := func() id.Session {
		s := id.New[id.Session]()
		f.in(t, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO sessions (org_id, id, project_id, agent, principal, status, last_active_at, created_at, updated_at)
				VALUES ($1, $2, 'prj_1', '{}', '{}', 'idle', now(), now(), now())`, f.org, s)
			return err
		})
		return s
	}
	appendTo := func(s id.Session, seq int, types ...string) {
		for i, kind := range types {
			f.in(t, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), `INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, payload, created_at)
					VALUES ($1, $2, $3, $4, $5, 1, 1, '{"stop_reason":{"type":"end_turn","reason":"secret words"},"text":"secret words"}', now())`,
					f.org, s, seq+i, id.New[id.Event](), kind)
				return err
			})
		}
	}
	s := session()
	appendTo(s, 1, SessionIdle) // before anybody listens
	f.create(t, r.URL, SessionIdle)
	appendTo(s, 2, "session.status_running", "agent.message", SessionIdle, SessionTerminated)
	f.round(t)
	got := r.all()
	require.Len(t, got, 1)
	var m message
	require.NoError(t, json.Unmarshal(got[0].body, &m))
	require.Equal(t, SessionIdle, m.Type)
	require.JSONEq(t, `{"type":"session","id":"`+string(s)+`","project_id":"prj_1","seq":4,"stop_reason":{"type":"end_turn"}}`, string(m.Data))
	require.NotContains(t, string(got[0].body), "secret words")
}
