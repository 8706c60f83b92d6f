package api

import (
	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

// Domains are the services that the endpoints call. All but Sandboxes are needed.
type Domains struct {
	Tenants  *tenants.Service
	Agents   *agents.Service
	Sessions *scheduler.Service
	Models   *models.Gateway
	Prices   *prices.Table
	Policies *policy.Service
	Webhooks *notifications.Webhooks
	// Sandboxes shows the files of sessions; without it they are answered with 503.
	Sandboxes *sandbox.Service
}
