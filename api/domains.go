package api

import (
	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

// Domains are the services that the endpoints call. All but Sandboxes are needed.
type Domains struct {
	Tenants  *tenants.Service
	Agents   *agents.Service
	Sessions *scheduler.Service
	Models   *models.Gateway
	Prices   *prices.Table
	Policies *policy.Service
	Mandates *register.Service
	Webhooks *notifications.Webhooks
	// AgentKeys are what agents sign with, StepUp keeps people's passkeys.
	AgentKeys *identity.AgentKeys
	StepUp    *identity.StepUp
	// Sandboxes shows the files of sessions; without it they are answered with 503.
	Sandboxes *sandbox.Service
}
