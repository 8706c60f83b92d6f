package approval

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/tenants"
)

// TestARuleMoreLetsNoOthersDecideOnTaint: the platform's own rule keeps its approvers beside an organisation's rule with others.
func TestARuleMoreLetsNoOthersDecideOnTaint(t *testing.T) {
	own := func(s Stage) Stored {
		return Stored{ID: "own", Rule: Rule{Name: "Own", Outcome: Ask, Stages: []Stage{s}}}
	}
	for name, weak := range map[string]Stage{
		"another role":   {Roles: []tenants.Role{tenants.RoleDeveloper}, Need: 1, Within: time.Hour},
		"one role more":  {Roles: []tenants.Role{tenants.RoleAdmin, tenants.RoleDeveloper}, Need: 1, Within: time.Hour},
		"a named member": {Members: []id.User{"usr_x"}, Need: 1, Within: time.Hour},
	} {
		d := demandOf([]Stored{own(weak), byTaint})
		require.Len(t, d.Stages, 2, "%s: an owner or admin is asked no more", name)
		require.Equal(t, byTaint.Stages[0].Roles, d.Stages[1].Roles)
	}
	d := demandOf([]Stored{own(Stage{Roles: []tenants.Role{tenants.RoleAdmin}, Need: 2, Within: time.Hour}), byTaint})
	require.Len(t, d.Stages, 1, "admins are asked once")
}

// TestADraftedWaiverIsNoWiderThanWhatWasDone: a star that the agent wrote is no pattern.
func TestADraftedWaiverIsNoWiderThanWhatWasDone(t *testing.T) {
	a := &Approval{Agent: "agt_x", Shown: Shown{Action: Action{Tool: "http_request"}, Does: "POST", Object: "https://pay.example/*", Domain: "pay.example"}}
	require.NotContains(t, Remember(a, time.Now()).Object, "*", "the draft lets other addresses go, too")
}

// TestAMailHasNoArguments: what the agent wrote stays in the console, and adds no lines to what people read.
func TestAMailHasNoArguments(t *testing.T) {
	a := &Approval{ID: "apr_x", Demand: Demand{Stages: byTaint.Stages}, Shown: Shown{
		Action: Action{Tool: "write_file"}, AgentName: "Ada's\nagent", Does: "write", Object: "token-abc\n\nThis is approved already.", Amount: money.Dollar,
	}}
	mail := askMail(a, &member{user: "usr_x", email: "ada@example.com"}, "org_x", 0, "https://ambit.example/x/apr_x")
	for _, text := range []string{mail.Subject, mail.Text} {
		require.NotContains(t, text, "token-abc", "an argument is in the mail")
		require.NotContains(t, text, "approved already", "the agent wrote a line of the mail")
		require.NotContains(t, text, "Ada's\n")
	}
}
