// Package webhooks is the console's pages about an organisation's webhooks: the endpoints, making one, whose secret is shown once, a test
// message, and what was sent to each, with the answers.
//
// It owns those pages and their words. What an endpoint may be, how messages are signed, sent and tried again is notifications'.
package webhooks
