// Package notifications tells people by mail and programs by webhooks.
//
// It owns the queue of outgoing mail: a mail is written in the transaction that it tells of (SendTx), so it leaves if and only if that was
// committed, and a background service hands it to an SMTP server, again after a failure, at longer and longer intervals. Subject and text
// hold one-time links, so they lie sealed in the database and are removed once sent. Delivery is at least once: a process that dies
// between the server's answer and its note sends again, under the same Message-ID.
//
// It owns webhooks: the endpoints of an organisation with their sealed secrets, the events that they hear of (PublishTx, in the transaction
// that the event tells of), the dispatcher that signs and sends them by the rules of Standard Webhooks, again after a failure, and the record
// of each attempt. Endpoints are other people's addresses: they are reached through internal/egress alone. One that hangs keeps no other
// waiting; one where nothing arrives for days is disabled.
//
// It does not own what a mail says, who should get one, nor when something is worth telling: its callers do. It imports internal plumbing
// only.
package notifications
