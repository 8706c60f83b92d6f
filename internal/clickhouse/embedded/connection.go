package embedded

import (
	"errors"
	"io"
	"runtime"
	"unsafe"
)

// connection is one session of the engine, with its own settings, current
// database and temporary tables. The engine runs the queries of one connection
// one after the other and those of several in parallel, so a request has one of
// its own. Its methods are not safe for use by several goroutines at once.
type connection struct {
	lib *library
	ptr *uintptr
}

// parameter is a value for a {name:Type} place in a query, escaped as the HTTP
// interface does (tab-separated text).
type parameter struct{ name, value string }

var errNoConnection = errors.New("the ClickHouse engine refused a connection")

// connectArgs are given to every connect alike: the engine is started by the
// first and would refuse another path later.
func (l *library) dial(args []string) (*connection, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	argv := make([]unsafe.Pointer, 0, len(args)+1)
	for _, arg := range args {
		c := append([]byte(arg), 0)
		pin.Pin(&c[0])
		argv = append(argv, unsafe.Pointer(&c[0]))
	}
	argv = append(argv, nil)
	pin.Pin(&argv[0])

	l.connecting.Lock()
	ptr := l.connect(int32(len(args)), unsafe.Pointer(&argv[0]))
	l.signals.restore()
	l.connecting.Unlock()

	if ptr == nil {
		return nil, errNoConnection
	}
	return &connection{lib: l, ptr: ptr}, nil
}

func (c *connection) close() {
	if c.ptr != nil {
		c.lib.closeConn(c.ptr)
		c.ptr = nil
	}
}

// run executes a statement and returns its whole output and the rows written.
func (c *connection) run(query, format string, params []parameter) (output []byte, written uint64, err error) {
	call := newCall(query, format, params)
	defer call.release()
	result := call.do(c.lib.queryWithParams, *c.ptr)
	if result == 0 {
		return nil, 0, errors.New("the ClickHouse engine gave no result")
	}
	defer c.lib.destroyResult(result)
	if text := c.lib.resultError(result); text != "" {
		return nil, 0, newException(text)
	}
	return c.lib.copyBuffer(result), c.lib.resultRowsWritten(result), nil
}

// exec is run for a statement whose output is of no interest.
func (c *connection) exec(query string) error {
	_, _, err := c.run(query, "Null", nil)
	return err
}

// stream executes a query that returns rows and hands its output to each in
// pieces, in order. A piece is only valid during the call. An error of each ends
// the query.
func (c *connection) stream(query, format string, params []parameter, each func([]byte) error) error {
	call := newCall(query, format, params)
	defer call.release()
	stream := call.do(c.lib.streamQueryWithParams, *c.ptr)
	if stream == 0 {
		return errors.New("the ClickHouse engine gave no result")
	}
	defer c.lib.destroyResult(stream)
	if text := c.lib.resultError(stream); text != "" {
		return newException(text)
	}
	for {
		more, err := c.fetch(stream, each)
		if err != nil {
			c.lib.streamCancel(*c.ptr, stream)
			return err
		}
		if !more {
			return nil
		}
	}
}

func (c *connection) fetch(stream uintptr, each func([]byte) error) (more bool, err error) {
	chunk := c.lib.streamFetch(*c.ptr, stream)
	if chunk == 0 {
		return false, nil
	}
	defer c.lib.destroyResult(chunk)
	if text := c.lib.resultError(chunk); text != "" {
		return false, newException(text)
	}
	n := c.lib.resultLength(chunk)
	if n == 0 {
		return false, nil
	}
	return true, each(unsafe.Slice(c.lib.resultBuffer(chunk), n))
}

// insertPiece bounds what is handed to the engine at once, and so the copy that
// it makes.
const insertPiece = 256 << 10

// insert runs "INSERT INTO … [SETTINGS …]" (without its FORMAT) over the data of
// r. It is all or nothing as far as one block of the engine goes: when r fails,
// what it had given so far is dropped. An engine's error comes as *exception, one
// of r as it is.
func (c *connection) insert(query, format string, params []parameter, r io.Reader) (written uint64, err error) {
	call := newCall(query, format, params)
	defer call.release()
	stream := call.do(c.lib.streamInsertWithParams, *c.ptr)
	if stream == 0 {
		return 0, errors.New("the ClickHouse engine gave no insert stream")
	}
	defer c.lib.destroyInsertStream(stream)
	if text := c.lib.streamInsertError(stream); text != "" {
		return 0, newException(text)
	}

	piece := make([]byte, insertPiece)
	for {
		n, readErr := readPiece(r, piece)
		if n > 0 {
			state := c.lib.streamAppend(stream, unsafe.Pointer(&piece[0]), uintptr(n))
			runtime.KeepAlive(piece)
			if state != 0 {
				err := newException(c.lib.streamInsertError(stream))
				c.lib.streamCancelInsert(stream)
				return 0, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			c.lib.streamCancelInsert(stream)
			return 0, readErr
		}
	}

	result := c.lib.streamDone(stream)
	if result == 0 {
		return 0, errors.New("the ClickHouse engine gave no result for an insert")
	}
	defer c.lib.destroyResult(result)
	if text := c.lib.resultError(result); text != "" {
		return 0, newException(text)
	}
	return c.lib.resultRowsWritten(result), nil
}

// readPiece fills piece as far as r goes. It is not io.ReadFull, which reports an
// ordinary end inside the piece and a cut connection with the same error: the
// first must commit the insert and the second must not.
func readPiece(r io.Reader, piece []byte) (n int, err error) {
	for n < len(piece) && err == nil {
		var m int
		m, err = r.Read(piece[n:])
		n += m
	}
	return n, err
}

// copyBuffer copies the output of a result out of the engine's memory.
func (l *library) copyBuffer(result uintptr) []byte {
	n := l.resultLength(result)
	if n == 0 {
		return nil
	}
	return append([]byte(nil), unsafe.Slice(l.resultBuffer(result), n)...)
}

// nativeCall is the common argument list of the three entry points that take a
// query with parameters. Its memory is pinned: the engine reads arrays of
// addresses, which the garbage collector does not see through.
type nativeCall struct {
	pin               runtime.Pinner
	query, format     []byte
	names, values     []unsafe.Pointer
	nameLens, valLens []uintptr
	count             int
}

func newCall(query, format string, params []parameter) *nativeCall {
	c := &nativeCall{query: cBytes(query), format: cBytes(format), count: len(params)}
	c.pin.Pin(&c.query[0])
	c.pin.Pin(&c.format[0])
	// One spare element, so that there is an address even without parameters.
	c.names = make([]unsafe.Pointer, len(params)+1)
	c.values = make([]unsafe.Pointer, len(params)+1)
	c.nameLens = make([]uintptr, len(params)+1)
	c.valLens = make([]uintptr, len(params)+1)
	for i, p := range params {
		name, value := cBytes(p.name), cBytes(p.value)
		c.pin.Pin(&name[0])
		c.pin.Pin(&value[0])
		c.names[i], c.nameLens[i] = unsafe.Pointer(&name[0]), uintptr(len(p.name))
		c.values[i], c.valLens[i] = unsafe.Pointer(&value[0]), uintptr(len(p.value))
	}
	c.pin.Pin(&c.names[0])
	c.pin.Pin(&c.values[0])
	c.pin.Pin(&c.nameLens[0])
	c.pin.Pin(&c.valLens[0])
	return c
}

func (c *nativeCall) do(fn func(conn uintptr, query unsafe.Pointer, n uintptr, format unsafe.Pointer, fn uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) uintptr, conn uintptr) uintptr {
	return fn(conn,
		unsafe.Pointer(&c.query[0]), uintptr(len(c.query)-1),
		unsafe.Pointer(&c.format[0]), uintptr(len(c.format)-1),
		unsafe.Pointer(&c.names[0]), unsafe.Pointer(&c.nameLens[0]),
		unsafe.Pointer(&c.values[0]), unsafe.Pointer(&c.valLens[0]),
		uintptr(c.count))
}

func (c *nativeCall) release() { c.pin.Unpin() }

// cBytes ends a string with the zero that C code may look for.
func cBytes(s string) []byte { return append([]byte(s), 0) }
