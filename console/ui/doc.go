// Package ui holds the console's shared components: what a button, a status, an amount of money, a table, a waterfall looks like, once.
//
// It owns how a thing is drawn and worded, including the one projection of a session's status and stop reason into the words that
// people see. It does not own pages, navigation, or where data comes from. It may import internal/money and nothing else of Ambit.
//
// Two rules hold for every component. Colour never stands alone: a status is an icon and a word. And there is no inline style and no
// inline script, because the console's content security policy forbids both; sizes that depend on data are SVG attributes.
package ui
