package api

import (
	"reflect"

	"ambit.dev/ambit/api/internal/schema"
)

// sentEvent is an event that a client may send.
type sentEvent struct {
	Type    string      `json:"type"`
	Content inputBlocks `json:"content"`
	Reason  string      `json:"reason"`
}

type sentMessage struct {
	Type    string      `json:"type" const:"user.message" required:"true"`
	Content inputBlocks `json:"content" required:"true"`
}

type sentInterrupt struct {
	Type   string `json:"type" const:"user.interrupt" required:"true"`
	Reason string `json:"reason" maxlen:"500" doc:"Why, for the journal."`
}

// JSONSchema implements schema.Provider.
func (sentEvent) JSONSchema(b *schema.Builder, d schema.Direction) *schema.Schema {
	return &schema.Schema{OneOf: []*schema.Schema{b.Of(reflect.TypeFor[sentMessage](), d), b.Of(reflect.TypeFor[sentInterrupt](), d)}}
}
