// Package browser looks at the console's pages in a real Chromium, for tests: each page at two widths and in both themes, with axe-core,
// with every violation of the content security policy counted, and with a screenshot kept where one was asked for.
//
// It owns how a page is judged, and how a person's hand and keyboard are moved. It is imported by tests alone. axe-core 4.14.1 is under the Mozilla Public License 2.0.
package browser
