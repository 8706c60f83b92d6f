package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// front answers ClickHouse's HTTP interface from the engine.
type front struct {
	lib     *library
	args    []string
	log     *slog.Logger
	version string
	zone    string

	// slots bounds the queries under way: each has a connection and threads of
	// the engine's.
	slots chan struct{}
	// serial makes the names under which queries can be killed.
	serial atomic.Uint64
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/ping":
		f.ping(w)
	case r.URL.Path != "/":
		http.NotFound(w, r)
	case r.Method != http.MethodPost && r.Method != http.MethodGet:
		http.Error(w, "only GET and POST are served", http.StatusMethodNotAllowed)
	default:
		f.query(w, r)
	}
}

// ping runs a query: a listener that answers in front of an engine that does not
// is no sign of life.
func (f *front) ping(w http.ResponseWriter) {
	conn, err := f.lib.dial(f.args)
	if err == nil {
		defer conn.close()
		err = conn.exec("SELECT 1")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "Ok.\n")
}

func (f *front) query(w http.ResponseWriter, r *http.Request) {
	req, err := parseRequest(r)
	if err != nil {
		(&reply{w: w, tag: randomTag()}).fail(asException(err))
		return
	}
	out := newReply(w, req)

	// Only a POST may change anything, as with a ClickHouse server.
	if r.Method == http.MethodGet {
		req.settings = append(req.settings, setting{"readonly", "1"})
	}

	ctx := r.Context()
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		out.fail(asException(ctx.Err()))
		return
	}

	if err := f.answer(ctx, out, req); err != nil {
		// Said even when the context has ended: that may be this process stopping
		// while the client waits, and silence would read as success.
		e := asException(err)
		f.log.DebugContext(ctx, "query failed", "query_id", req.queryID, "code", e.code)
		out.fail(e)
	}
}

func (f *front) answer(ctx context.Context, out *reply, req *request) error {
	if req.isHandshake() {
		data, err := handshake(req.revision, f.version, f.zone)
		if err != nil {
			return err
		}
		return out.write(data)
	}

	conn, err := f.lib.dial(f.args)
	if err != nil {
		return err
	}
	defer conn.close()

	name := fmt.Sprintf("ambit-%d", f.serial.Add(1))
	if err := f.prepare(conn, req, name); err != nil {
		return err
	}

	finished := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-finished:
		case <-ctx.Done():
			f.kill(name, finished)
		}
	}()
	err = f.run(conn, out, req)
	close(finished)
	<-watched
	return err
}

// prepare gives the connection the request's database, settings and temporary
// tables. The settings go last, since they may forbid what comes before.
func (f *front) prepare(conn *connection, req *request, name string) error {
	if req.database != "" {
		if err := conn.exec("USE " + sqlName(req.database)); err != nil {
			return err
		}
	}
	for _, table := range req.external {
		if err := conn.exec(fmt.Sprintf("CREATE TEMPORARY TABLE %s (%s)", sqlName(table.name), table.structure)); err != nil {
			return err
		}
		if _, err := conn.insert("INSERT INTO "+sqlName(table.name), table.format, nil, bytes.NewReader(table.data)); err != nil {
			return err
		}
	}
	set := make([]string, 0, len(req.settings)+1)
	var readonly string
	for _, s := range req.settings {
		switch s.name {
		case "log_comment":
			// The query is found by its comment when it must be killed.
			continue
		case "readonly":
			// Once this holds no other setting can be changed.
			readonly = s.value
			continue
		}
		set = append(set, s.name+" = "+sqlString(s.value))
	}
	set = append(set, "log_comment = "+sqlString(name))
	if err := conn.exec("SET " + strings.Join(set, ", ")); err != nil {
		return err
	}
	if readonly != "" && readonly != "0" {
		return conn.exec("SET readonly = " + sqlString(readonly))
	}
	return nil
}

func (f *front) run(conn *connection, out *reply, req *request) error {
	switch req.kind {
	case dataInsert:
		format := req.statement.format
		if format == "" {
			format = req.format
		}
		written, err := conn.insert(req.text, format, req.params, req.data)
		if err != nil {
			return err
		}
		out.summary(written)
		return nil
	case rowStatement:
		if !req.whole {
			err := conn.stream(req.text, req.format, req.params, out.write)
			if !notStreamable(err) || out.started {
				return err
			}
		}
	case plainStatement:
	}
	output, written, err := conn.run(req.text, req.format, req.params)
	if err != nil {
		return err
	}
	out.summary(written)
	return out.write(output)
}

// notStreamable recognises the engine's refusal to stream a statement, which
// says nothing against running it.
func notStreamable(err error) bool {
	var e *exception
	return errors.As(err, &e) && strings.Contains(e.text, "Streaming query is not supported")
}

// killInterval is how often a query whose client has gone is killed again. Once
// is not enough: the first may come before the engine has registered the query.
const killInterval = 50 * time.Millisecond

// kill ends the query of the given name and returns when it has.
func (f *front) kill(name string, finished <-chan struct{}) {
	ticker := time.NewTicker(killInterval)
	defer ticker.Stop()
	for {
		if conn, err := f.lib.dial(f.args); err == nil {
			err = conn.exec("KILL QUERY WHERE Settings['log_comment'] = " + sqlString(name) + " ASYNC")
			conn.close()
			if err != nil {
				f.log.Warn("a query could not be killed", "query", name, "error", err)
			}
		}
		select {
		case <-finished:
			return
		case <-ticker.C:
		}
	}
}

func asException(err error) *exception {
	var e *exception
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return &exception{code: codeQueryCancelled, text: fmt.Sprintf("Code: %d. DB::Exception: the query was cancelled before it began. (QUERY_WAS_CANCELLED)", codeQueryCancelled)}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &exception{code: codeCannotReadAllData, text: fmt.Sprintf("Code: %d. DB::Exception: %v. (CANNOT_READ_ALL_DATA)", codeCannotReadAllData, err)}
	}
	const codeUnknown = 1002
	return &exception{code: codeUnknown, text: fmt.Sprintf("Code: %d. DB::Exception: %v. (UNKNOWN_EXCEPTION)", codeUnknown, err)}
}
