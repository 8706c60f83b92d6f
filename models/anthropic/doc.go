// Package anthropic calls models through Anthropic's Messages API, streamed.
//
// It owns that API's wire format and the list of models known without asking. The wire types hold only what Ambit reads or writes; a
// thinking block is kept whole and byte for byte, since its signature covers it. It imports models and models/internal only.
package anthropic
