// Package ratelimit holds token buckets by key: how often somebody may ask, per process.
//
// It owns the counting and its bound on memory. It does not know who asks or what an answer looks like, and shares nothing between
// processes: with n replicas behind a balancer a caller's quota is at most n times the policy's. It imports only the standard library.
package ratelimit
