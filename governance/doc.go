// Package governance is the folder of what decides whether an effect may happen: the gate, and with it permissions, mandates and
// approvals. It has no code of its own.
package governance
