package tenants

import (
	"net/mail"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"ambit.dev/ambit/internal/fault"
)

const (
	maxEmail = 254
	maxName  = 100
	maxSlug  = 63
)

// normalizeEmail returns the address as it is stored and compared: without surrounding space, in lower case. Only the part before the "@"
// could tell cases apart, and no provider of note does.
func normalizeEmail(raw string) (string, *fault.Field) {
	email := strings.ToLower(strings.TrimSpace(raw))
	bad := &fault.Field{Pointer: "/email", Code: "invalid_email", Message: "Enter an e-mail address, such as ada@example.com."}
	if email == "" || len(email) > maxEmail {
		return "", bad
	}
	for _, c := range []byte(email) {
		if c <= ' ' || c > '~' {
			return "", bad // an international domain is written in its xn-- form
		}
	}
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Address != email || parsed.Name != "" {
		return "", bad
	}
	_, domain, _ := strings.Cut(email[strings.LastIndexByte(email, '@'):], "@")
	if !domainPattern.MatchString(domain) {
		return "", bad
	}
	return email, nil
}

// domainPattern also takes a bare host such as localhost.
var domainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// cleanName trims a name and refuses what would not show as one line of text.
func cleanName(raw, pointer string, required bool) (string, *fault.Field) {
	name := strings.TrimSpace(raw)
	switch {
	case name == "" && !required:
		return "", nil
	case name == "":
		return "", &fault.Field{Pointer: pointer, Code: "required", Message: "Enter a name."}
	case !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxName:
		return "", &fault.Field{Pointer: pointer, Code: "too_long", Message: "A name has at most 100 characters."}
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return "", &fault.Field{Pointer: pointer, Code: "invalid_name", Message: "A name is one line of visible characters."}
		}
	}
	return name, nil
}

var slugPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// slugOf makes the part of a URL that stands for a name. It may be taken.
func slugOf(name, fallback string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(name) {
		if b.Len() >= maxSlug-8 { // leaves room for a suffix
			break
		}
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') {
			if gap && b.Len() > 0 {
				b.WriteByte('-')
			}
			gap = false
			b.WriteRune(r)
		} else {
			gap = true
		}
	}
	if b.Len() == 0 {
		return fallback
	}
	return b.String()
}

// withSuffix makes a slug that is hardly taken.
func withSuffix(slug string) string {
	return slug + "-" + strings.ToLower(newKeySecret()[len(keyMark):len(keyMark)+5])
}

// fieldFaults collects what is wrong with an input.
type fieldFaults []fault.Field

func (f *fieldFaults) add(field *fault.Field) {
	if field != nil {
		*f = append(*f, *field)
	}
}

func (f fieldFaults) err() error {
	if len(f) == 0 {
		return nil
	}
	return fault.InvalidFields(f...)
}
