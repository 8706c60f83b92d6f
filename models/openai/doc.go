// Package openai calls models through the Chat Completions API, streamed: OpenAI's own, and every server that speaks it (Ollama, vLLM,
// llama.cpp, LiteLLM and others), each under a name of its own.
//
// It owns that API's wire format and the ways in which servers depart from it. It imports models and models/internal only.
package openai
