// Package models is the model gateway: one canonical request, one canonical stream of events and one canonical reply for every provider,
// and the only way by which a model is called.
//
// It owns the canonical types, the typed errors of a call, the digest that an admission is bound to, the upper bound of a request's
// input, the registry that turns "provider/model" into a provider, and Generate, which demands an admission. Each provider lives in a
// sub-package that imports only this one (and this one's internal packages).
//
// It does not own prices (billing/prices), the decision whether a call may be made (governance/gate), retries (the scheduler makes a new
// step, with its own admission, for each attempt) or what a tool call does (connectors).
//
// It may import governance and what is below it; never connectors, agents or the scheduler.
package models
