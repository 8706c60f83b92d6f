// Command engine is the embedded engine's process by itself, for tests.
package main

import (
	"context"
	"fmt"
	"os"

	"ambit.dev/ambit/internal/clickhouse/embedded"
)

func main() {
	if err := embedded.Command().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
