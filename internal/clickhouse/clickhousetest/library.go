package clickhousetest

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/engines"
)

// Library is the path of libchdb.
func Library(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	lib, err := library(ctx)
	require.NoError(t, err)
	return lib
}

// library is the path of libchdb, which is obtained when the machine has it not.
func library(ctx context.Context) (string, error) {
	set, err := engines.Obtain(ctx, engines.Options{Out: os.Stderr}, engines.ClickHouse)
	if err != nil {
		return "", fmt.Errorf("the tests need the ClickHouse engine ('ambit doctor' says what is missing): %w", err)
	}
	return set.LibChdb, nil
}
