// Package egress is the one way by which Ambit itself makes a request to an address that somebody else chose: a tool's request, a webhook.
//
// It owns the reading of such addresses (one spelling of each host, however it was written), the rules of allowed hosts, the list of
// networks that are never reached, and a client that holds to both: it resolves a name itself, checks every address that it dials at the
// moment of the dial, checks each redirect like a first request, and bounds redirects, headers, body and time. It takes no proxy from the
// environment, keeps no cookies and reuses no connection, so that nothing of one request reaches the next.
//
// It does not own who may ask for what (governance), nor what a request is for. It knows no domain, and imports only the standard library
// and golang.org/x/net.
package egress
