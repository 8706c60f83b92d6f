package clickhousetest

import (
	"context"
	"fmt"
	"os"

	"ambit.dev/ambit/internal/engines"
)

// library is the path of libchdb, which is obtained when the machine has it not.
func library(ctx context.Context) (string, error) {
	set, err := engines.Obtain(ctx, engines.Options{Out: os.Stderr}, engines.ClickHouse)
	if err != nil {
		return "", fmt.Errorf("the tests need the ClickHouse engine ('ambit doctor' says what is missing): %w", err)
	}
	return set.LibChdb, nil
}
