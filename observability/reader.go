package observability

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	chdriver "github.com/ClickHouse/clickhouse-go/v2"

	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// Scope says whose spans a query may see. Both belong to every query.
type Scope struct {
	Org     id.Org
	Project id.Project
}

// Reader answers questions about spans. It is safe for use by several goroutines
// at once.
//
// Its methods return a fault: unavailable when ClickHouse cannot be reached,
// not found where a thing is missing or belongs to another, internal otherwise.
type Reader struct {
	db *clickhouse.DB
}

// NewReader returns a reader on db.
func NewReader(db *clickhouse.DB) *Reader { return &Reader{db: db} }

// queryTimeout bounds a query on ClickHouse's side; what people wait for is far
// below it.
const queryTimeout = 20 * time.Second

// query is one statement with its parameters, which ClickHouse itself puts in:
// no value ever becomes part of the text.
type query struct {
	sql    string
	params map[string]any
}

// tables of which the second guard knows. A table that is missing here is read
// without it, so a test compares the list with the migrations.
var guardedTables = []string{"spans", "usage_hourly"}

// guard makes ClickHouse itself add the tenant's condition to every reading of a
// table, whatever the statement says: a query that forgets its own condition
// then still yields nothing of another's.
func (s Scope) guard() (string, error) {
	// These are the only values that are written into a text. Their alphabet has
	// nothing that could end a string.
	org, err := id.Parse[id.Org](string(s.Org))
	if err != nil {
		return "", fmt.Errorf("a query's organisation: %w", err)
	}
	condition := "org_id = '" + string(org) + "'"
	if s.Project != "" {
		project, err := id.Parse[id.Project](string(s.Project))
		if err != nil {
			return "", fmt.Errorf("a query's project: %w", err)
		}
		condition += " AND project_id = '" + string(project) + "'"
	}
	// The conditions are strings within the map's text, with quotes of their own.
	quoted := "'" + strings.ReplaceAll(condition, "'", `\'`) + "'"
	entries := make([]string, 0, len(guardedTables))
	for _, table := range guardedTables {
		entries = append(entries, "'"+table+"': "+quoted)
	}
	return "{" + strings.Join(entries, ", ") + "}", nil
}

// run executes q for scope and fills dest, a pointer to a slice of structs.
func (r *Reader) run(ctx context.Context, scope Scope, q query, dest any) error {
	guard, err := scope.guard()
	if err != nil {
		return fault.As(err)
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout+5*time.Second)
	defer cancel()
	ctx = chdriver.Context(ctx, chdriver.WithSettings(chdriver.Settings{
		"additional_table_filters": guard,
		// Nothing is written by a query. 2 and not 1: a server refuses to change
		// the settings of this very list under 1.
		"readonly":           2,
		"max_execution_time": int(queryTimeout.Seconds()),
		"session_timezone":   "UTC",
		// All copies of a row are in one partition.
		"do_not_merge_across_partitions_select_final": 1,
	}))
	names := make([]string, 0, len(q.params))
	for name := range q.params {
		names = append(names, name)
	}
	sort.Strings(names)
	args := make([]any, 0, len(names))
	for _, name := range names {
		args = append(args, chdriver.Named(name, q.params[name]))
	}
	if err := r.db.Conn().Select(ctx, dest, q.sql, args...); err != nil {
		return asFault(err)
	}
	return nil
}

func asFault(err error) error {
	var engine *chdriver.Exception
	if errors.As(err, &engine) {
		const timeoutExceeded = 159
		if engine.Code == timeoutExceeded {
			return fault.New(fault.GatewayTimeout, "provider_timeout", "The traces took too long to read: ask for less at once.").Because(err)
		}
		return fault.As(fmt.Errorf("query ClickHouse: %w", err))
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fault.New(fault.Unavailable, "unavailable", "Traces cannot be read at the moment. Nothing is lost: sessions go on, and their spans wait.").
		After(2 * time.Second).Because(err)
}
