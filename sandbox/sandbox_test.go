package sandbox_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASessionClaimsAWarmSandboxAndRunsInIt(t *testing.T) {
	r := newRig(t)
	r.awaitWarm(1)
	first := r.warmOnes()[0]
	tn := r.tenant()
	b, err := tn.acquire(1)
	require.NoError(t, err)
	require.Equal(t, first, string(b.ID))
	require.True(t, b.Fresh)
	require.Equal(t, "hello from /work", tn.must(b, `echo "hello from $PWD"`))

	again, err := tn.acquire(1)
	require.NoError(t, err)
	require.Equal(t, b.ID, again.ID)
	require.False(t, again.Fresh)
	require.Len(t, tn.events("sandbox.started"), 1)
	r.awaitWarm(1) // the pool refills behind it
	require.NotEqual(t, first, r.warmOnes()[0])
	_ = time.Now
}
