package billing

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strconv"
	"strings"
	"time"
)

// namedParts are the parts that are ids, with the name of the id's column.
var namedParts = map[string]string{"project": "project_id", "agent": "agent_id", "key": "key_id", "member": "user_id"}

// UsageCSV writes rows as a table with a head: the beginning of the bucket in the zone, the parts that were asked for (ids with names beside
// them), and the amount in dollars, exact.
func UsageCSV(rows []UsageRow, bucket string, by []string, zone *time.Location, names map[string]string) []byte {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	w.UseCRLF = true // RFC 4180
	var head []string
	if bucket != "" {
		head = append(head, bucket)
	}
	var parts []string
	for _, part := range UsageParts {
		if slices.Contains(by, part) {
			parts = append(parts, part)
			if column, ok := namedParts[part]; ok {
				head = append(head, column)
			}
			head = append(head, part)
		}
	}
	write := func(line []string) {
		for i, cell := range line {
			line[i] = plainCell(cell)
		}
		_ = w.Write(line) // into memory
	}
	write(append(head, "spent_usd", "effects"))
	for _, r := range rows {
		var line []string
		switch bucket {
		case "day":
			line = append(line, r.StartsAt.In(zone).Format(time.DateOnly))
		case "hour":
			line = append(line, r.StartsAt.In(zone).Format(time.RFC3339))
		}
		for _, part := range parts {
			value := r.Part(part)
			if _, ok := namedParts[part]; ok {
				line = append(line, value, names[value])
			} else {
				line = append(line, value)
			}
		}
		write(append(line, r.Spent.Decimal(), strconv.FormatInt(r.Effects, 10)))
	}
	w.Flush()
	return out.Bytes()
}

// plainCell keeps a spreadsheet from taking what somebody named a thing for a formula.
func plainCell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
