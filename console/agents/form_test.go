package agents

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// TestTheEditorLosesNothing: what the editor does not show, publishing it unchanged would take away.
func TestTheEditorLosesNothing(t *testing.T) {
	ceiling := money.Dollar
	d := journal.Definition{
		Model: "ambit/scripted", System: "one\ntwo", Tools: []string{"bash", "http_request"}, MaxTokens: 100, IfRunning: "reject",
		Limits:  journal.Limits{MaxCost: &ceiling, MaxTokens: 1, MaxSteps: 2, MaxWallSeconds: 3},
		Network: journal.Network{AllowedHosts: []string{"api.example.com", "*.example.org:8443"}, IdentityHosts: []string{"api.example.com"}},
	}
	back, problems := formOf("a", "", d, 1).definition()
	require.Empty(t, problems)
	require.Equal(t, d, back)
	require.False(t, anyChange(compare(d, back), d, back))
	back.Network.AllowedHosts = nil
	require.True(t, anyChange(compare(d, back), d, back), "a change of what it may reach is shown before it is published")
}
