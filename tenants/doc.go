// Package tenants knows who there is: organisations, their projects, members and API keys; people, their passwords and sign-ins.
//
// It owns signing up, signing in and out, the mailed links that verify an address or reset a password, the throttling of attempts, API
// keys from making to revoking, and the table that says which role may do what. It answers who somebody is; whether an agent may do
// something is governance's question, and what an organisation may spend is billing's.
//
// # What a stranger can learn
//
// With a mail server, the answers to sign-up, to a request for a reset and to a request for another verification mail are the same,
// and take the same time, whether the address has an account or not: what differs goes into the mailbox. An account that is not yet verified
// cannot sign in, and the refusal is worded like that of a wrong password. The link that verifies asks for the password again: otherwise
// one could sign up with another's address and wait for its owner to open the link.
//
// Without a mail server an account can be used at once, so a sign-up with a taken address must fail, and its failing tells that the
// address is taken. It says no more than that these details were not accepted. Such an instance is for one's own machine, or behind
// another sign-in. An account made there is not marked as verified, and need not be when a mail server comes later.
//
// # Invitations
//
// An invitation is for an address; that it has an account is not looked up before its link is used, and not told to whoever invites. A mailed link
// proves the address, one that was handed over does not. Whoever sent it must still be able to give the role when it is accepted.
//
// It imports notifications and the plumbing below; identity, its sub-package, holds the instance's own keys.
package tenants
