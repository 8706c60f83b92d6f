// Package notifications sends mail.
//
// It owns the queue of outgoing mail: a mail is written in the transaction that it tells of (SendTx), so it leaves if and only if that was
// committed, and a background service hands it to an SMTP server, again after a failure, at longer and longer intervals. Subject and text
// hold one-time links, so they lie sealed in the database and are removed once sent. Delivery is at least once: a process that dies
// between the server's answer and its note sends again, under the same Message-ID.
//
// It does not own what a mail says nor whether it should be sent: its caller does. It imports internal plumbing only.
package notifications
