package billing

import "context"

// RunOnce is one round of the watch.
func (w *Watch) RunOnce(ctx context.Context) error { return w.runOnce(ctx) }
