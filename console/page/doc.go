// Package page is what all pages of the console share: the shell around them, who is looking at which project, how a component becomes
// an answer, how a fault becomes a page, and the security headers.
//
// It owns navigation, the frame of signed-in and signed-out pages, the console's cookies for preferences and its content security
// policy. It does not own any page, does not authenticate anybody and reads no data. It may import console/ui, console/static, tenants for its table of permissions, and
// Ambit's plumbing.
package page
