// Package account is the console's pages for somebody who is not signed in yet, or not any more: sign-up, sign-in, the mailed links, and
// the landing page.
//
// It owns the console's sign-in cookie. Who somebody is, and what a stranger may learn of it, is decided in tenants.
package account
