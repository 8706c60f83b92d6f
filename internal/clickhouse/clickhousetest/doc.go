// Package clickhousetest gives tests a real ClickHouse: one embedded engine a
// test binary, with a migrated database of its own for each test, or an engine
// that the test may kill and start again.
//
// A machine where the engine cannot run fails these tests; none is skipped.
//
// It is imported by tests only.
package clickhousetest
