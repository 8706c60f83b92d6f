package api

import (
	"encoding/json"
	"reflect"
	"time"

	"ambit.dev/ambit/api/internal/schema"
)

// Time is a moment on the wire: RFC 3339, UTC, microseconds.
type Time time.Time

// timeLayout always has six decimals, so that times of one field sort as text.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Time(t).UTC().Format(timeLayout))
}

// UnmarshalJSON implements json.Unmarshaler, for clients in Go.
func (t *Time) UnmarshalJSON(b []byte) error {
	var parsed time.Time
	if err := json.Unmarshal(b, &parsed); err != nil {
		return err
	}
	*t = Time(parsed)
	return nil
}

// JSONSchema implements schema.Provider.
func (Time) JSONSchema(*schema.Builder, schema.Direction) *schema.Schema {
	return &schema.Schema{Type: schema.Types{"string"}, Format: "date-time"}
}

// timePtr shows an absent time as null.
func timePtr(t *time.Time) *Time {
	if t == nil || t.IsZero() {
		return nil
	}
	w := Time(*t)
	return &w
}

// Opt is a field of an update: left out it stays, null clears it, a value replaces it.
type Opt[T any] struct {
	Set   bool
	Null  bool
	Value T
}

// UnmarshalJSON implements json.Unmarshaler. It is called for null too.
func (o *Opt[T]) UnmarshalJSON(b []byte) error {
	o.Set = true
	if string(b) == "null" {
		o.Null = true
		return nil
	}
	return json.Unmarshal(b, &o.Value)
}

// JSONSchema implements schema.Provider.
func (o Opt[T]) JSONSchema(b *schema.Builder, d schema.Direction) *schema.Schema {
	return b.Of(reflect.TypeFor[*T](), d)
}

// Ptr is nil when the field was left out, and the new value otherwise; null gives the zero value.
func (o Opt[T]) Ptr() *T {
	if !o.Set {
		return nil
	}
	v := o.Value
	return &v
}

// Metadata is a client's own words on a resource: at most 16 pairs, keys of at most 64 characters, values of at most 512.
type Metadata map[string]string

// JSONSchema implements schema.Provider.
func (Metadata) JSONSchema(b *schema.Builder, d schema.Direction) *schema.Schema {
	return b.Define(reflect.TypeFor[Metadata](), d, "Metadata", func() *schema.Schema {
		return &schema.Schema{
			Type: schema.Types{"object"}, MaxProperties: schema.Int(16),
			Description:   "Your own words on it: at most 16 pairs, keys of at most 64 characters, values of at most 512.",
			PropertyNames: &schema.Schema{MinLength: schema.Int(1), MaxLength: schema.Int(64)},
			Additional:    &schema.Schema{Type: schema.Types{"string"}, MaxLength: schema.Int(512)},
		}
	})
}

// TimeRange is the filter created_at[gt|gte|lt|lte].
type TimeRange struct {
	After, From, Before, To *time.Time
}

// halfOpen is the range from a moment, included, to another, not included; nil is no bound. Times here are exact to the microsecond.
func (r TimeRange) halfOpen() (since, until *time.Time) {
	since, until = r.From, r.Before
	if since == nil && r.After != nil {
		t := r.After.Add(time.Microsecond)
		since = &t
	}
	if until == nil && r.To != nil {
		t := r.To.Add(time.Microsecond)
		until = &t
	}
	return since, until
}
