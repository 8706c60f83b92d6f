// Package builtin has the tools that every agent can be given: bash, python, and files. Each is one Go file beside its description for the
// model (.md) and works in the session's sandbox, whose guest confines it to the working directory and bounds its time, memory and output.
//
// It owns what these tools take and answer. It imports connectors, and sandbox for the requests that a workspace takes.
package builtin
