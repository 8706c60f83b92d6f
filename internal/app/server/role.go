package server

import "fmt"

// Role is what a process does.
type Role string

// The roles. A process of role all does everything, as one machine needs.
const (
	All     Role = "all"
	API     Role = "api"
	Console Role = "console"
	Worker  Role = "worker"
)

// ParseRole reads a role from the command line.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case All, API, Console, Worker:
		return r, nil
	default:
		return "", fmt.Errorf("there is no role %q: it is all, api, console or worker", s)
	}
}

func (r Role) api() bool     { return r == All || r == API }
func (r Role) console() bool { return r == All || r == Console }
func (r Role) worker() bool  { return r == All || r == Worker }
