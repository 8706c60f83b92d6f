package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/url"
)

// hidden stands wherever a secret would.
const hidden = "[hidden]"

// Secret is a text that no log line, error, JSON document or fmt verb shows.
// Only Reveal gives it away.
type Secret string

// Reveal returns the text, for the one place that needs it.
func (s Secret) Reveal() string { return string(s) }

// IsSet says whether there is a text at all.
func (s Secret) IsSet() bool { return s != "" }

// String is "[hidden]", or empty when there is nothing to hide.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format hides the text under every verb: %d would print it otherwise.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue hides the text from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON hides the text from encoding/json.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText hides the text from every other encoder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Address is a URL that may hold a password. It shows itself without.
type Address string

// Reveal returns the URL with its password.
func (a Address) Reveal() string { return string(a) }

// IsSet says whether there is an address at all.
func (a Address) IsSet() bool { return a != "" }

// Scheme is the URL's scheme, empty when there is no address.
func (a Address) Scheme() string {
	u, err := url.Parse(string(a))
	if err != nil {
		return ""
	}
	return u.Scheme
}

// String is the URL with its user's password hidden. Query parameters are
// dropped, since some drivers take passwords there.
func (a Address) String() string {
	if a == "" {
		return ""
	}
	u, err := url.Parse(string(a))
	if err != nil || u.Scheme == "" {
		return hidden
	}
	s := u.Scheme + "://"
	if u.User != nil {
		s += u.User.Username()
		if _, has := u.User.Password(); has {
			s += ":" + hidden
		}
		s += "@"
	}
	return s + u.Host + u.EscapedPath()
}

// Format hides the password under every verb.
func (a Address) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// LogValue hides the password from slog.
func (a Address) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalJSON hides the password from encoding/json.
func (a Address) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// MarshalText hides the password from every other encoder.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
