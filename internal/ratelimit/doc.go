// Package ratelimit counts quotas over all processes: how many requests, or tokens of models, an API key or an organisation may have in a time.
//
// A bucket is a row of Postgres. A process takes a slice of it, a fiftieth of the quota, and gives that out from memory; so of fifty requests one
// writes, and no two processes give out the same. Slices that nobody asks for are given back after ten seconds. What is counted after its use
// (tokens) is noted in memory and written once a second.
//
// What this bounds: never more than the quota at once and what has come back since, over all processes, plus the slices that processes still had
// from before, a fiftieth of the quota each. A caller may be refused early by as much. A process that is killed loses its slices, which come
// back as any use does, and at most a second of the tokens that it had to count.
//
// It owns the table rate_buckets. It does not know who asks or what an answer looks like. It imports internal/postgres, internal/background,
// internal/clock and internal/id.
package ratelimit
