package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// noticeTx is the transaction that InTx hands out: it remembers what is to be told to other processes once it has committed. A NOTIFY
// inside the transaction would take a lock of the whole database at commit and so serialise all commits.
type noticeTx struct {
	pgx.Tx
	notices []notice
	after   []func()
}

type notice struct{ channel, payload string }

// Notify tells listeners of the channel, after the transaction's commit. A notice is a hint: rows are the truth, and a listener that
// missed one finds them by its own poll. tx must come from InTx, InPlatformTx or InWorkerTx.
func Notify(tx pgx.Tx, channel, payload string) {
	t, ok := tx.(*noticeTx)
	if !ok {
		panic("postgres.Notify: the transaction was not begun by this package")
	}
	n := notice{channel, payload}
	for _, have := range t.notices {
		if have == n {
			return
		}
	}
	t.notices = append(t.notices, n)
}

// Announce tells listeners of the channel now, for what is committed already; as with Notify, it is a hint.
func (db *DB) Announce(channel, payload string) { db.courier.take([]notice{{channel, payload}}) }

// AfterCommit runs fn in this process once the transaction has committed, and not at all if it does not.
func AfterCommit(tx pgx.Tx, fn func()) {
	t, ok := tx.(*noticeTx)
	if !ok {
		panic("postgres.AfterCommit: the transaction was not begun by this package")
	}
	t.after = append(t.after, fn)
}

// Listener holds one connection that listens, and passes notices on to any number of subscribers in this process.
type Listener struct {
	db       *DB
	log      *slog.Logger
	channels []string

	mu   sync.Mutex
	subs map[string]map[*subscription]struct{} // by channel and payload

	started chan struct{}
	cancel  context.CancelFunc
	done    chan struct{}
}

type subscription struct{ wake chan struct{} }

// NewListener makes a listener on the given channels. Start it before use.
func NewListener(db *DB, log *slog.Logger, channels ...string) *Listener {
	return &Listener{db: db, log: log, channels: channels, subs: map[string]map[*subscription]struct{}{}, started: make(chan struct{}), done: make(chan struct{})}
}

// Start begins to listen in the background. Started is closed when the first LISTEN is in force.
func (l *Listener) Start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go l.run(ctx)
}

// Started is closed once notices can no longer be missed.
func (l *Listener) Started() <-chan struct{} { return l.started }

// Stop ends the listening and waits for it.
func (l *Listener) Stop() {
	if l.cancel != nil {
		l.cancel()
		<-l.done
	}
}

// Subscribe returns a channel that receives after each notice with this payload on this channel, and once after every reconnection, when
// notices may have been missed. Several notices may arrive as one. Call the returned function when done.
func (l *Listener) Subscribe(channel, payload string) (<-chan struct{}, func()) {
	s := &subscription{wake: make(chan struct{}, 1)}
	key := channel + "\x00" + payload
	l.mu.Lock()
	if l.subs[key] == nil {
		l.subs[key] = map[*subscription]struct{}{}
	}
	l.subs[key][s] = struct{}{}
	l.mu.Unlock()
	return s.wake, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs[key], s)
		if len(l.subs[key]) == 0 {
			delete(l.subs, key)
		}
	}
}

func (s *subscription) hint() {
	select {
	case s.wake <- struct{}{}:
	default: // one is waiting already
	}
}

func (l *Listener) run(ctx context.Context) {
	defer close(l.done)
	var once sync.Once
	for ctx.Err() == nil {
		err := l.listen(ctx, func() { once.Do(func() { close(l.started) }) })
		if ctx.Err() != nil {
			return
		}
		l.log.WarnContext(ctx, "the connection that listens for notices was lost; connecting again", "error", err)
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (l *Listener) listen(ctx context.Context, ready func()) error {
	// A connection of its own, outside the pool: it is held for the life of the process.
	conn, err := pgx.ConnectConfig(ctx, l.db.app.Config().ConnConfig.Copy())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	for _, channel := range l.channels {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return fmt.Errorf("listen on %s: %w", channel, err)
		}
	}
	l.hintAll()
	ready()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		l.mu.Lock()
		for s := range l.subs[n.Channel+"\x00"+n.Payload] {
			s.hint()
		}
		l.mu.Unlock()
	}
}

func (l *Listener) hintAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, set := range l.subs {
		for s := range set {
			s.hint()
		}
	}
}
