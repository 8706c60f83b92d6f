package models

import (
	"encoding/json"
	"unicode/utf8"
)

// What InputBound adds to the bytes, in tokens.
const (
	// requestOverhead covers what a provider puts round a request: begin and end marks, the default system prompt of a local model's chat
	// template, the instructions that accompany tools (the largest published one is 804 tokens).
	requestOverhead = 2048
	messageOverhead = 64
	blockOverhead   = 64
	toolOverhead    = 256
	// imageOverhead is above the largest published price of one image (48,169 tokens).
	imageOverhead = 65_536
	// rendered is how much a provider may lengthen JSON before the model reads it: escaping a two-byte character as \u00e9 triples it, and
	// indenting may double the rest.
	rendered = 6
)

// InputBound is an upper bound of the tokens that a provider can count as the request's input, cached ones included.
//
// A byte-level BPE tokenizer (all of OpenAI's and Anthropic's, Llama, Qwen, Mistral) starts from single bytes and only merges them, and a
// SentencePiece one with byte fallback does no worse, so that a text never has more tokens than it has UTF-8 bytes. To the bytes come
// fixed allowances for what is put round messages, blocks, tools and images, and a factor for JSON, which a provider may render anew. It
// is several times the true count, on purpose: what is held must suffice, and what is not used is given back at once.
//
// It does not hold for a tokenizer that normalises text into something longer (NFKC turns one character into up to eighteen). Should usage
// ever exceed the bound, the excess is booked as the platform's loss and logged as an error, and the bound is to be mended.
func InputBound(r Request) int64 {
	n := int64(requestOverhead) + textBytes(r.System)
	for _, t := range r.Tools {
		n += toolOverhead + textBytes(t.Name) + textBytes(t.Description) + rendered*int64(len(t.InputSchema))
	}
	for _, m := range r.Messages {
		n += messageOverhead
		for _, b := range m.Content {
			n += blockBound(b)
		}
	}
	return n
}

func blockBound(b Block) int64 {
	n := blockOverhead + textBytes(b.Text) + textBytes(b.ID) + textBytes(b.ToolUseID) + textBytes(b.Name) +
		rendered*int64(len(b.Input)) + int64(len(b.Raw))
	if b.Type == Image {
		n += imageOverhead
	}
	for _, c := range b.Content {
		n += blockBound(c)
	}
	return n
}

// textBytes counts UTF-8 bytes as they arrive: a byte that is no UTF-8 is sent as U+FFFD, which has three.
func textBytes(s string) int64 {
	n := int64(len(s))
	if utf8.ValidString(s) {
		return n
	}
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			n += 2
		}
		i += size
	}
	return n
}

// EstimateUsage is the usage to settle by when a provider reported none: one token for each four bytes, rounded up, of the request's and
// the reply's content. It is about what an English text has, and is always marked as an estimate. Where some counts were reported (the
// input, say, before a stream was cut), prefer those.
func EstimateUsage(r Request, partial Response) Usage {
	in := int64(len(r.System))
	for _, t := range r.Tools {
		in += int64(len(t.Name) + len(t.Description) + len(t.InputSchema))
	}
	for _, m := range r.Messages {
		in += contentBytes(m.Content)
	}
	return Usage{Input: (in + 3) / 4, Output: (contentBytes(partial.Content) + 3) / 4}
}

func contentBytes(blocks []Block) int64 {
	var n int64
	for _, b := range blocks {
		n += int64(len(b.Text)+len(b.Name)+len(b.Input)) + contentBytes(b.Content)
		if b.Type == Thinking && b.Text == "" {
			var raw struct {
				Thinking string `json:"thinking"`
			}
			if json.Unmarshal(b.Raw, &raw) == nil {
				n += int64(len(raw.Thinking))
			}
		}
		if b.Type == Image {
			n += 4 * 1600 // what a picture of ordinary size costs, in the bytes of as many tokens
		}
	}
	return n
}
