// Package approval lets people decide on single effects of agents: which effects they are asked about, who may decide and how many must,
// in which stages and within what time, and what their decision is good for.
//
// It owns the rules that say when somebody is asked, the questions (approvals), the decisions, absences and their delegates, and the limit on
// how often one person is asked. Rules are read together with the permissions and share their version, so that whoever decides by what is in
// memory is told when it is out of date. A decision is bound to the digest of one exact action, and is good for one use: Use marks it in the
// transaction that admits the effect, or fails.
//
// Silence is a refusal, and is never told as a person's. What can't be read, has no approver left, or was decided by somebody who may no
// longer decide, is not approved.
//
// It does not admit anything (governance/gate does, and asks here), does not append to a journal or wake anybody (scheduler does), and does
// not send mail by itself. It imports governance/policy, tenants, journal and plumbing, and never the gate.
package approval
