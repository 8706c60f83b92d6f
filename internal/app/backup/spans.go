package backup

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/klauspost/compress/zstd"

	ch "ambit.dev/ambit/internal/clickhouse"
)

// spansBatch is how many rows go to ClickHouse in one insert.
const spansBatch = 5000

// spansHeader begins the spans' part. The rows follow as []any, one each.
type spansHeader struct {
	Columns []string
	Types   []string
}

func init() { //nolint:gochecknoinits // gob knows types by registration only
	for _, v := range []any{
		time.Time{},
		map[string]uint64{},
		map[string]string{},
		[]string{},
		uint8(0), uint16(0), uint32(0), uint64(0), int8(0), int16(0), int32(0), int64(0), float32(0), float64(0), false, "",
	} {
		gob.Register(v)
	}
}

// dumpSpans writes every span, rows that stand twice only once, and returns how
// many they are. Values travel in their Go form, so that bytes that are no text
// come through.
func dumpSpans(ctx context.Context, db *ch.DB, w io.Writer) (_ int64, err error) {
	columns, types, err := insertable(ctx, db)
	if err != nil {
		return 0, err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	enc := gob.NewEncoder(z)
	if err := enc.Encode(spansHeader{Columns: columns, Types: types}); err != nil {
		return 0, err
	}
	rows, err := db.Conn().Query(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM spans FINAL")
	if err != nil {
		return 0, fmt.Errorf("reading the spans: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var n int64
	for rows.Next() {
		dest := make([]any, len(columns))
		for i, t := range rows.ColumnTypes() {
			dest[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(dest...); err != nil {
			return n, fmt.Errorf("reading a span: %w", err)
		}
		row := make([]any, len(dest))
		for i, d := range dest {
			row[i] = reflect.ValueOf(d).Elem().Interface()
		}
		if err := enc.Encode(row); err != nil {
			return n, fmt.Errorf("writing a span: %w", err)
		}
		n++
	}
	return n, rows.Err()
}

// insertable lists the columns of spans that an insert may name.
func insertable(ctx context.Context, db *ch.DB) (columns, types []string, err error) {
	rows, err := db.Conn().Query(ctx, `SELECT name, type FROM system.columns
		WHERE database = currentDatabase() AND table = 'spans' AND default_kind IN ('', 'DEFAULT') ORDER BY position`)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the columns of the spans: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var c, t string
		if err := rows.Scan(&c, &t); err != nil {
			return nil, nil, err
		}
		columns, types = append(columns, c), append(types, t)
	}
	if len(columns) == 0 && rows.Err() == nil {
		return nil, nil, errors.New("there is no table of spans: run ambit migrate first")
	}
	return columns, types, rows.Err()
}

// loadSpans inserts what dumpSpans wrote. label and the row's number make each
// batch's deduplication token, so that a restore that is run again counts none
// twice.
func loadSpans(ctx context.Context, db *ch.DB, r io.Reader, label string) (int64, error) {
	z, err := zstd.NewReader(r)
	if err != nil {
		return 0, err
	}
	defer z.Close()
	dec := gob.NewDecoder(z)
	var h spansHeader
	if err := dec.Decode(&h); err != nil {
		return 0, fmt.Errorf("%w: the spans: %w", ErrDamaged, err)
	}
	here, _, err := insertable(ctx, db)
	if err != nil {
		return 0, err
	}
	keep := keepColumns(h.Columns, here)
	names := make([]string, len(keep))
	for i, k := range keep {
		names[i] = h.Columns[k]
	}

	var n int64
	for done := false; !done; {
		batchCtx := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
			"insert_deduplication_token": fmt.Sprintf("restore-%s-%d", label, n), "async_insert": 0,
		}))
		batch, err := db.Conn().PrepareBatch(batchCtx, "INSERT INTO spans ("+strings.Join(names, ", ")+")")
		if err != nil {
			return n, fmt.Errorf("inserting spans: %w", err)
		}
		for batch.Rows() < spansBatch {
			var row []any
			if err := dec.Decode(&row); errors.Is(err, io.EOF) {
				done = true
				break
			} else if err != nil {
				return n, errors.Join(fmt.Errorf("%w: the spans: %w", ErrDamaged, err), batch.Abort())
			}
			values := make([]any, len(keep))
			for i, k := range keep {
				values[i] = row[k]
			}
			if err := batch.Append(values...); err != nil {
				return n, errors.Join(fmt.Errorf("inserting a span: %w", err), batch.Abort())
			}
		}
		rows := batch.Rows()
		if rows == 0 {
			return n, batch.Abort()
		}
		if err := batch.Send(); err != nil {
			return n, fmt.Errorf("inserting spans: %w", err)
		}
		n += int64(rows)
	}
	return n, nil
}

// keepColumns are the indexes of the dumped columns that this release still has.
func keepColumns(dumped, here []string) []int {
	known := map[string]bool{}
	for _, c := range here {
		known[c] = true
	}
	var keep []int
	for i, c := range dumped {
		if known[c] {
			keep = append(keep, i)
		}
	}
	return keep
}
