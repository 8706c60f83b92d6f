// Package members is the console's pages about who belongs to an organisation: its members and what their roles are, the invitations that are
// open, and the roles that the organisation makes of its own.
//
// It owns those pages and their words; all rules are those of tenants.
package members
