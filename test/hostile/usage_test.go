package hostile

import (
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/test/provider"
)

// untrueUsage are attacks by a provider: what it says that a call used is more than could be held for it, or no number of tokens at all.
func (s *stage) untrueUsage() []attack {
	const kind = "an account that is not true"
	// charged says that more was captured than was held, or less than nothing; what a provider says above the hold is never the organisation's.
	charged := func(x *scene) string {
		captured := x.number(x.t, `SELECT coalesce(sum(amount_nanos), 0)::bigint FROM ledger_transfers WHERE session_id = $1 AND kind = 'capture'`, x.session)
		held := x.number(x.t, `SELECT coalesce(sum(amount_nanos), 0)::bigint FROM holds WHERE session_id = $1 AND step_id IS NOT NULL`, x.session)
		one := x.number(x.t, `SELECT count(*) FROM holds WHERE session_id = $1 AND captured_nanos > amount_nanos`, x.session)
		cost := x.number(x.t, `SELECT charged_nanos FROM sessions WHERE id = $1`, x.session)
		if captured > held || one > 0 || cost != captured {
			return fmt.Sprintf("%d nano-dollars were captured of %d held, and %d charged", captured, held, cost)
		}
		return ""
	}
	web := may{tools: []string{"http_request"}, hosts: []string{"127.0.0.1:" + s.open.port}}
	watched := web
	watched.model = "openai/magpie"
	row := func(name, usage, says string) attack {
		return attack{
			kind: kind, name: name, may: web,
			says: func(*scene) []provider.Turn {
				return []provider.Turn{{Say: "Dear.", Usage: usage}, {Say: "Dearer.", Usage: usage}}
			},
			forbidden: func(x *scene) string {
				for _, e := range x.events {
					if e.Type == "agent.message" && (e.text() == "Dear." || e.text() == "Dearer.") {
						return "an answer was taken whose cost nobody knows"
					}
				}
				return charged(x)
			},
			why: failed(says), twin: func(*scene) []provider.Turn { return []provider.Turn{{Say: "Cheap."}} }, done: said("Cheap."),
		}
	}
	const senseless = `malformed|makes no sense|can.t be read|could not be read`
	over := attack{
		kind: kind, name: "more tokens than were held for", may: watched,
		says: func(x *scene) []provider.Turn {
			lie := `{"prompt_tokens":1000000,"completion_tokens":1000000,"total_tokens":2000000}`
			return []provider.Turn{{Calls: []provider.Call{request(x.openURL("paid"))}, Usage: lie}, {Calls: []provider.Call{request(x.openURL("again"))}, Usage: lie}}
		},
		forbidden: func(x *scene) string {
			if x.provider.Requests(x.tag) > 1 {
				return "the model was called again, though what it may cost at most is not known"
			}
			loss := x.number(x.t, `SELECT coalesce(sum(amount_nanos), 0)::bigint FROM ledger_transfers WHERE session_id = $1 AND kind = 'loss' AND debit_account = 'loss'`, x.session)
			capture := x.number(x.t, `SELECT t.amount_nanos FROM ledger_transfers t JOIN steps p ON p.org_id = t.org_id AND p.id = t.step_id
				WHERE t.session_id = $1 AND t.kind = 'capture' AND p.kind = 'model_call'`, x.session)
			if want := int64(1_000_000*100 + 1_000_000*1000); loss+capture != want {
				return fmt.Sprintf("%d nano-dollars above the hold are booked as the platform's loss, with %d captured of the %d that the provider asks", loss, capture, want)
			}
			return charged(x)
		},
		why: denied(1, `bound: openai/magpie once used more than was held for it`),
		// The twin is the same model once an operator has mended its bound.
		twin: func(x *scene) []provider.Turn {
			x.mendBound("openai/magpie")
			return []provider.Turn{{Say: "Cheap."}}
		},
		done: said("Cheap."),
	}
	return []attack{
		over,
		row("fewer tokens than none", `{"prompt_tokens":-1000000,"completion_tokens":-4,"total_tokens":-1000004}`, senseless),
		row("a negative part of them", `{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":-9000000}}`, senseless),
		row("more tokens than can be counted", `{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807,"total_tokens":-2}`, senseless),
		row("tokens that are no number", `{"prompt_tokens":1e400,"completion_tokens":"many","total_tokens":null}`, senseless),
	}
}

// said says that the agent did not say the text.
func said(text string) func(*scene) string {
	return func(x *scene) string {
		for _, e := range x.events {
			if e.Type == "agent.message" && e.text() == text {
				return ""
			}
		}
		return "the agent did not say " + text
	}
}

// mendBound is what an operator does with ambit bounds mend.
func (x *scene) mendBound(model string) {
	x.t.Helper()
	require.NoError(x.t, pgx.BeginFunc(x.t.Context(), x.owner, func(tx pgx.Tx) error { return gate.MendBound(x.t.Context(), tx, model) }))
}
