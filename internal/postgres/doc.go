// Package postgres is the way to the database of truth: two pools of connections, one a role, transactions that belong to one
// organisation, migrations, the committer, and notifications.
//
// It owns roles, transactions and the translation of the database's errors into faults. It knows no domain's tables. It imports the
// embedded migrations and other plumbing, nothing above.
package postgres
