package idempotency

import "ambit.dev/ambit/internal/fault"

// ParseKey reads the header's value: 1 to 255 printable ASCII characters, bare or as a quoted string of RFC 8941. The two forms of one
// key are the same key.
func ParseKey(value string) (string, error) {
	key := value
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		unquoted := make([]byte, 0, len(key)-2)
		inner := key[1 : len(key)-1]
		for i := 0; i < len(inner); i++ {
			c := inner[i]
			if c == '"' {
				return "", badKey()
			}
			if c == '\\' {
				i++
				if i == len(inner) || (inner[i] != '"' && inner[i] != '\\') {
					return "", badKey()
				}
				c = inner[i]
			}
			unquoted = append(unquoted, c)
		}
		key = string(unquoted)
	}
	if key == "" || len(key) > MaxKey {
		return "", badKey()
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return "", badKey()
		}
	}
	return key, nil
}

func badKey() error {
	return fault.InvalidField("header/Idempotency-Key", "invalid_value", "Idempotency-Key must be 1 to 255 printable ASCII characters, bare or in double quotes.")
}
