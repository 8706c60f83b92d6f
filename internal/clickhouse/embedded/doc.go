// Package embedded runs the ClickHouse engine inside a process of its own and
// answers ClickHouse's HTTP interface on a unix socket, so that one machine
// needs no ClickHouse server: the ordinary clickhouse-go driver talks to it
// unchanged.
//
// It owns the binding to libchdb (loaded at run time, without cgo), the HTTP
// front, the cancelling of queries whose client has gone, and the orderly end
// of the process. It does not own where the library comes from, the process's
// supervision, the schema or any query of the product.
//
// The engine lives in a child process on purpose: it is half a gigabyte of C++
// with two hundred threads and its own ideas about signals, and a fault in it
// must not take a session with it.
//
// Nothing here is a security boundary between tenants. The engine has one user
// who may read any file of the host through SQL, so the socket is for Ambit
// alone (mode 0600), and no SQL written by a tenant may ever reach it.
//
// It may import the standard library, purego, ch-go and clickhouse-go's
// protocol packages, cobra, and nothing of Ambit.
package embedded
