package observability

import (
	"time"

	"ambit.dev/ambit/internal/id"
)

// firstSessionAt makes a stretch of time a range of the sorting key.
func firstSessionAt(t time.Time) string { return string(id.FirstAt[id.Session](t)) }
