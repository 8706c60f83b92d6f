package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

const long = "Sleep for a while.\n\n```bash\necho begun; sleep 60; echo done\n```\n"

// interruptAndKill stops a session twice while a command runs in its microVM: so that it can go on, and for good.
func (s *stories) interruptAndKill(t *testing.T) {
	p := s.person(t, "lin")
	var agent struct {
		ID string `json:"id"`
	}
	require.Equal(t, http.StatusCreated, p.Call(http.MethodPost, "/v1/agents", map[string]any{"name": "sleeper", "model": "ambit/scripted", "tools": []string{"bash"}}, &agent))
	id := invoke(t, p.Account, agent.ID, "Wait for the tide", long)

	p.Visit(t, p.path("sessions", id))
	p.UntilSays(t, "#session-head", "Runs bash")
	require.Contains(t, p.Text(t, "#session-head .badge"), "Running")
	p.Choose(t, "Interrupt", "#session-head")
	p.UntilSays(t, "#session-head .badge", "Stopped")
	require.Contains(t, p.Text(t, "#session-head .badge"), "interrupted")
	require.Contains(t, p.Text(t, "#session-head"), "$0.0006 held", "its sandbox lives on, and its time is held")
	p.UntilSays(t, "#session-head", "Waits for the next message")
	require.Contains(t, p.Text(t, "#transcript .entry-tool"), "Cancelled")
	require.Equal(t, "interrupted", settled(t, p.Account, id).StopReason.Type)

	p.Write(t, "Message to the session", long)
	p.Choose(t, "Send", "#composer")
	p.UntilSays(t, "#session-head", "Runs bash")
	p.Choose(t, "Kill", "#session-head")
	p.UntilSays(t, "#kill-dialog h2", "Kill this session?")
	require.Contains(t, p.Text(t, "#kill-dialog"), "Wait for the tide", "the dialog names what it ends")
	p.Write(t, "Reason", "it sleeps too long")
	p.Choose(t, "Kill session", "#kill-dialog")
	p.UntilSays(t, "#kill-dialog", "Killed.")
	receipt := p.Text(t, "#kill-dialog")
	require.Regexp(t, `rec_[0-9a-z]{26}|rcp_[0-9a-z]{26}|[a-z]{3}_[0-9a-z]{26}`, receipt)
	require.Contains(t, receipt, "Charged")
	require.Contains(t, receipt, "Released")
	require.Contains(t, receipt, "Sandbox gone", "the dialog waits until the microVM has ended")
	require.Contains(t, receipt, "signed by this instance")
	charged := exact(t, p.Tab, "#kill-dialog .kv .money")
	p.Choose(t, "Done", "#kill-dialog")
	p.UntilSays(t, "#session-head .badge", "Stopped")
	require.Contains(t, p.Text(t, "#session-head .badge"), "killed")
	require.Contains(t, p.Text(t, "#session-head"), "Takes no more input")
	p.UntilSays(t, "#composer", "has ended")
	require.Equal(t, charged, exact(t, p.Tab, "#session-head .money"))

	end := settled(t, p.Account, id)
	require.Equal(t, "terminated", end.Status)
	require.Equal(t, "killed", end.StopReason.Type)
	require.Equal(t, charged, end.Cost.Charged)
	require.Zero(t, end.Cost.Held)
	p.Visit(t, p.path("sessions")+"?group=ended")
	require.Contains(t, p.Text(t, "main"), "Wait for the tide")
	require.Contains(t, p.Text(t, "main"), "killed", "an ended session says why, also in the list")
	quiet(t, p.Tab)
}
