// Package identity is the console's pages about what agents sign with and what members confirm with: an agent's keys, their rotation and
// retirement, its published documents; members' passkeys, and barring one.
//
// It owns the words and the layout. Keys and passkeys are tenants/identity's; a person's own passkeys are changed in the settings. It
// imports page, ui, confirm and the domains that it shows.
package identity
