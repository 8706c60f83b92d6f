package embedded

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"sort"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
)

// maxQueryText bounds the text of a query, not the data of an insert.
const maxQueryText = 64 << 20

// request is one call of ClickHouse's HTTP interface.
type request struct {
	statement

	database string
	format   string
	queryID  string
	// revision is the protocol version that the client speaks, for the
	// handshake only.
	revision string
	settings []setting
	params   []parameter
	external []externalTable
	// data is what follows the text of an insert; nil when there is none.
	data io.Reader
	// compress is the method of ClickHouse's own framing for the answer.
	compress compress.Method
	// framed says that the answer is compressed at all.
	framed bool
	// whole asks for the answer only once the query has succeeded.
	whole bool
}

type setting struct{ name, value string }

// externalTable is a temporary table that came with the request.
type externalTable struct {
	name, structure, format string
	data                    []byte
}

// transportParams are the parameters of the interface that are no settings of
// the engine. Users and quotas do not exist here and are ignored, as is
// session_id: each request has a session of its own.
var transportParams = map[string]bool{
	"query": true, "database": true, "default_format": true, "query_id": true,
	"compress": true, "decompress": true, "user": true, "password": true,
	"quota_key": true, "session_id": true, "session_timeout": true,
	"session_check": true, "role": true, "stacktrace": true,
	"client_protocol_version": true, "wait_end_of_query": true,
	"buffer_size": true, "close_session": true,
}

var (
	settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	tableName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// badRequest is an error of the caller that has no number of the engine's.
func badRequest(format string, args ...any) error {
	return &exception{
		code: codeBadArguments,
		text: fmt.Sprintf("Code: %d. DB::Exception: %s. (BAD_ARGUMENTS)", codeBadArguments, fmt.Sprintf(format, args...)),
	}
}

// parseRequest reads everything of r but the data of an insert, which stays to
// be streamed.
func parseRequest(r *http.Request) (*request, error) {
	query := r.URL.Query()
	req := &request{
		database: query.Get("database"),
		format:   query.Get("default_format"),
		queryID:  query.Get("query_id"),
		revision: query.Get("client_protocol_version"),
		whole:    query.Get("wait_end_of_query") == "1",
		framed:   query.Get("compress") == "1",
		compress: compress.LZ4,
	}
	if req.format == "" {
		req.format = "TabSeparated"
	}

	multipartForm, boundary, err := multipartBoundary(r)
	if err != nil {
		return nil, err
	}
	externalNames := map[string]bool{}
	for name := range query {
		if table, ok := strings.CutSuffix(name, "_structure"); ok && multipartForm {
			externalNames[table] = true
		}
	}
	for name, values := range query {
		value := values[len(values)-1]
		switch {
		case strings.HasPrefix(name, "param_"):
			req.params = append(req.params, parameter{strings.TrimPrefix(name, "param_"), value})
		case transportParams[name] || belongsToTable(name, externalNames):
		case !settingName.MatchString(name):
			return nil, badRequest("%q cannot be the name of a setting", name)
		default:
			if name == "network_compression_method" && strings.EqualFold(value, "zstd") {
				req.compress = compress.ZSTD
			}
			req.settings = append(req.settings, setting{name, value})
		}
	}
	// The order of a map must not decide which of two wrong settings is reported.
	sort.Slice(req.settings, func(i, j int) bool { return req.settings[i].name < req.settings[j].name })
	sort.Slice(req.params, func(i, j int) bool { return req.params[i].name < req.params[j].name })

	text := query.Get("query")
	if multipartForm {
		fields, err := readExternalTables(multipart.NewReader(r.Body, boundary), query.Get, req)
		if err != nil {
			return nil, err
		}
		req.statement = parseStatement(text + fields)
		return req, nil
	}

	body, err := decodeBody(r, query.Get("decompress") == "1")
	if err != nil {
		return nil, err
	}
	return req, req.split(text, body)
}

// split divides the query's text from the data of an insert. With a text in the
// address an insert's body is all data; otherwise the body is the text, and data
// may follow in it.
func (req *request) split(text string, body io.Reader) error {
	if text != "" {
		req.statement = parseStatement(text)
		if req.kind == dataInsert {
			req.data = io.MultiReader(strings.NewReader(req.inline), body)
			return nil
		}
	}
	rest, err := io.ReadAll(io.LimitReader(body, maxQueryText+1))
	if err != nil {
		return fmt.Errorf("read the query: %w", err)
	}
	if len(rest) > maxQueryText {
		return badRequest("a query's text has at most %d bytes", maxQueryText)
	}
	req.statement = parseStatement(text + string(rest))
	if req.kind == dataInsert {
		req.data = strings.NewReader(req.inline)
	}
	return nil
}

func multipartBoundary(r *http.Request) (is bool, boundary string, err error) {
	mediaType, args, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/form-data" {
		// An odd content type means nothing here: bodies are query text or rows.
		return false, "", nil //nolint:nilerr // see above
	}
	if args["boundary"] == "" {
		return false, "", badRequest("multipart body without a boundary")
	}
	return true, args["boundary"], nil
}

func belongsToTable(name string, tables map[string]bool) bool {
	for _, suffix := range []string{"_structure", "_format", "_types"} {
		if table, ok := strings.CutSuffix(name, suffix); ok && tables[table] {
			return true
		}
	}
	return false
}

func readExternalTables(form *multipart.Reader, param func(string) string, req *request) (query string, err error) {
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return query, nil
		}
		if err != nil {
			return "", badRequest("multipart body: %v", err)
		}
		data, err := io.ReadAll(io.LimitReader(part, maxQueryText+1))
		if err != nil {
			return "", badRequest("multipart body: %v", err)
		}
		if len(data) > maxQueryText {
			return "", badRequest("an external table has at most %d bytes", maxQueryText)
		}
		name := part.FormName()
		if name == "query" {
			query += string(data)
			continue
		}
		structure := param(name + "_structure")
		if !tableName.MatchString(name) || structure == "" {
			return "", badRequest("external table %q has no usable name or structure", name)
		}
		format := param(name + "_format")
		if format == "" {
			format = "TabSeparated"
		}
		req.external = append(req.external, externalTable{name, structure, format, data})
	}
}

// decodeBody undoes the two layers that a body may have: HTTP's content encoding
// and ClickHouse's compressed frames.
func decodeBody(r *http.Request, framed bool) (io.Reader, error) {
	var body io.Reader = r.Body
	var err error
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	case "br":
		body = brotli.NewReader(body)
	default:
		return nil, badRequest("content encoding %q is not known", encoding)
	}
	if err != nil {
		return nil, badRequest("the body is not in its content encoding: %v", err)
	}
	if framed {
		body = newFrameReader(body)
	}
	return body, nil
}

// frameReader reads ClickHouse's compressed frames. The reader below reports the
// end between two frames and the end in the midst of one alike; this tells them
// apart, because only the first may commit an insert.
type frameReader struct {
	frames *compress.Reader
	source countingReader
}

func newFrameReader(r io.Reader) *frameReader {
	f := &frameReader{source: countingReader{r: r}}
	f.frames = compress.NewReader(&f.source)
	return f
}

func (f *frameReader) Read(p []byte) (int, error) {
	f.source.n = 0
	n, err := f.frames.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && f.source.n == 0:
		return n, io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("compressed data: %w", io.ErrUnexpectedEOF)
	default:
		return n, badRequest("compressed data: %v", err)
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// sqlString quotes s for a statement.
func sqlString(s string) string {
	var b bytes.Buffer
	b.WriteByte('\'')
	for i := range len(s) {
		switch c := s[i]; c {
		case '\\', '\'':
			b.WriteByte('\\')
			b.WriteByte(c)
		case '\n':
			b.WriteString(`\n`)
		case 0:
			b.WriteString(`\0`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// sqlName quotes s as an identifier.
func sqlName(s string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(s) + "`"
}
