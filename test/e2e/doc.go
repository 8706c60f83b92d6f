// Package e2e goes the ways of Ambit's users through a whole instance: its own engines, its own microVMs, and a real browser before it.
//
// It owns the stories and the pictures that they leave in test/screens. How a page is judged is test/browser's, how an instance is run is
// test/instance's. It knows the platform only from outside: its pages, its API and its commands.
package e2e
