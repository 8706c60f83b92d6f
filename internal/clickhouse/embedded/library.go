package embedded

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is the C interface of libchdb, as far as it is used. Handles are
// opaque addresses; a *byte is memory of the engine and is valid until the
// result or stream that it belongs to is destroyed.
type library struct {
	connect   func(argc int32, argv unsafe.Pointer) *uintptr
	closeConn func(conn *uintptr)
	shutdown  func() int32
	version   func() string

	queryWithParams       func(conn uintptr, query unsafe.Pointer, n uintptr, format unsafe.Pointer, fn uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) uintptr
	streamQueryWithParams func(conn uintptr, query unsafe.Pointer, n uintptr, format unsafe.Pointer, fn uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) uintptr
	streamFetch           func(conn, result uintptr) uintptr
	streamCancel          func(conn, result uintptr)

	streamInsertWithParams func(conn uintptr, query unsafe.Pointer, n uintptr, format unsafe.Pointer, fn uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) uintptr
	streamAppend           func(stream uintptr, data unsafe.Pointer, n uintptr) int32
	streamDone             func(stream uintptr) uintptr
	streamInsertError      func(stream uintptr) string
	streamCancelInsert     func(stream uintptr)
	destroyInsertStream    func(stream uintptr)

	resultBuffer      func(result uintptr) *byte
	resultLength      func(result uintptr) uintptr
	resultError       func(result uintptr) string
	resultRowsRead    func(result uintptr) uint64
	resultRowsWritten func(result uintptr) uint64
	destroyResult     func(result uintptr)

	setSignalHandlers func(enabled int32)

	signals *signalGuard
	// connecting serialises chdb_connect: it resets signal handlers, and two of
	// those windows at once would be two chances to lose Go's.
	connecting sync.Mutex
}

// openLibrary loads libchdb from path, binds what is used of it and turns its
// signal handlers off. It can be done once in a process; the library is never
// unloaded.
func openLibrary(path string) (*library, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the ClickHouse engine's library: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the ClickHouse engine's library: %s is not a file", path)
	}

	lib := &library{signals: snapshotSignals()}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	lib.signals.restore()
	if err != nil {
		return nil, fmt.Errorf("load the ClickHouse engine from %s: %w", path, err)
	}

	for _, bind := range []struct {
		name string
		fn   any
	}{
		{"chdb_connect", &lib.connect},
		{"chdb_close_conn", &lib.closeConn},
		{"chdb_shutdown", &lib.shutdown},
		{"chdb_version", &lib.version},
		{"chdb_query_with_params_n", &lib.queryWithParams},
		{"chdb_stream_query_with_params_n", &lib.streamQueryWithParams},
		{"chdb_stream_fetch_result", &lib.streamFetch},
		{"chdb_stream_cancel_query", &lib.streamCancel},
		{"chdb_stream_insert_with_params_n", &lib.streamInsertWithParams},
		{"chdb_stream_append", &lib.streamAppend},
		{"chdb_stream_done", &lib.streamDone},
		{"chdb_stream_insert_error", &lib.streamInsertError},
		{"chdb_stream_cancel_insert", &lib.streamCancelInsert},
		{"chdb_destroy_insert_stream", &lib.destroyInsertStream},
		{"chdb_result_buffer", &lib.resultBuffer},
		{"chdb_result_length", &lib.resultLength},
		{"chdb_result_error", &lib.resultError},
		{"chdb_result_rows_read", &lib.resultRowsRead},
		{"chdb_result_rows_written", &lib.resultRowsWritten},
		{"chdb_destroy_query_result", &lib.destroyResult},
		{"chdb_set_signal_handlers_enabled", &lib.setSignalHandlers},
	} {
		symbol, err := purego.Dlsym(handle, bind.name)
		if err != nil {
			// Releases before 26.7 lack the streamed insert, without which binary
			// data is cut at its first newline: refuse them by name.
			return nil, fmt.Errorf("the ClickHouse engine at %s is too old or not libchdb: %w", path, err)
		}
		purego.RegisterFunc(bind.fn, symbol)
	}

	lib.setSignalHandlers(0)
	lib.signals.restore()
	return lib, nil
}
