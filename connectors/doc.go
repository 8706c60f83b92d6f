// Package connectors turns what an agent may call into typed tools: their names, schemas and descriptions for the model, the strict check of
// the arguments that a model wrote, and the one way by which a call is carried out, which demands an admission.
//
// It owns the registry of tools, the validation of arguments and of users' own schemas, and the shape of results. The built-in tools are in
// connectors/builtin, a file each beside its description.
//
// It does not own the sandbox that tools work in (sandbox), prices (billing/prices: a tool's ref is "mount/name") or the decision whether a
// call may be made (governance/gate). It imports models for the shape of a tool, sandbox for the workspace, and governance; never agents or
// the scheduler.
package connectors
