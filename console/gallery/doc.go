// Package gallery is the page at /components: every shared component in all its states. It is an aid to development and the subject of
// the accessibility tests, so that a component is proved once and not once a page.
//
// It owns examples and nothing else. It may import console/ui and console/page.
package gallery
