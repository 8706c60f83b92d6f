// Package console is the web console: pages for people, rendered on the server with templ, made live with htmx.
//
// It owns its routes, what a request passes through before a page is drawn (security headers, same origin, who is signed in, which
// project is meant, what becomes of an error), and the landing, sign-in and reference pages. Each family of pages is a folder of its
// own: handler.go, view.go, page.templ; console/ui holds the components that they share, console/static the assets.
//
// It writes no SQL and knows no vendor's SDK: all is done through the domains' services. It never imports api; what of the API is
// written here (its reference, its error types) is given to it as data.
package console
