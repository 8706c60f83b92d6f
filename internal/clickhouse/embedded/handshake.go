package embedded

import (
	"fmt"
	"strconv"
	"strings"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// handshakeQuery is what clickhouse-go asks first on each connection.
const handshakeQuery = "SELECT displayName(), version(), revision(), timezone()"

// isHandshake tells the driver's own first question from an ordinary query.
func (req *request) isHandshake() bool {
	return req.format == "Native" && req.revision != "" && strings.TrimSpace(req.text) == handshakeQuery
}

// handshake answers in the engine's stead. The library writes the Native format
// as for a client of revision 0, without block headers, whatever the client
// offers; a driver that was told any other revision would misread all blocks
// that follow. So this one answer is encoded as the driver expects it before it
// knows the revision, and says 0.
func handshake(clientRevision, version, zone string) ([]byte, error) {
	revision, err := strconv.ParseUint(clientRevision, 10, 32)
	if err != nil {
		return nil, badRequest("client_protocol_version %q is no number", clientRevision)
	}
	block := proto.NewBlock()
	row := []any{"Ambit embedded ClickHouse", version, uint32(0), zone}
	for i, kind := range []column.Type{"String", "String", "UInt32", "String"} {
		if err := block.AddColumn(fmt.Sprintf("column%d", i+1), kind); err != nil {
			return nil, fmt.Errorf("build the handshake: %w", err)
		}
	}
	if err := block.Append(row...); err != nil {
		return nil, fmt.Errorf("build the handshake: %w", err)
	}
	var buf chproto.Buffer
	if err := block.Encode(&buf, revision); err != nil {
		return nil, fmt.Errorf("encode the handshake: %w", err)
	}
	return buf.Buf, nil
}
