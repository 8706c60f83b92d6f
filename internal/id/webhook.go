package id

// Webhook identifies an endpoint that an organisation wants to hear of events at.
type Webhook string

// Prefix implements Kind.
func (Webhook) Prefix() string { return "whk" }

// Delivery identifies the sending of one event to one webhook.
type Delivery string

// Prefix implements Kind.
func (Delivery) Prefix() string { return "dlv" }
