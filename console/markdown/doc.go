// Package markdown draws the text of messages: the part of Markdown that models and people write, and nothing that could act.
//
// It owns that subset: paragraphs, headings, lists, quotations, rules, tables, fenced code, and within a line code, emphasis and links to http and
// https. There are no images, which would tell another host who reads, and no HTML: every character that is not a mark is escaped. What
// it does not know stays as it was written, so that nothing of a message is ever lost. It imports templ's escaping and nothing else.
package markdown
