// Package settings is the console's page about oneself and one's organisation: profile, password, sign-ins, organisation, projects and
// members.
//
// It owns that page and the acts on it; all rules are tenants'.
package settings
