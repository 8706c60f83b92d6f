// Package scripted is the built-in model "ambit/scripted". It is no language model: it carries out a small script of fenced blocks in the
// latest user message, one tool call a turn, and then quotes the last result. With it the whole of Ambit can be run and tested without a
// provider's key. The language is described in scripted.md, which the instance can show.
//
// It owns that language and is deterministic: the same request gives the same reply. It imports models and models/internal only, and has no
// effect of its own.
package scripted
