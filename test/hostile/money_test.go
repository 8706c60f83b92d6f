package hostile

import (
	"fmt"

	"ambit.dev/ambit/test/provider"
)

// money are attacks on what the agent may spend.
func (s *stage) money() []attack {
	const kind, priceless = "spending past what it may", "an effect without a price"
	open := []string{"127.0.0.1:" + s.open.port}
	web := func(change func(*may)) may {
		m := may{tools: []string{"http_request"}, hosts: open}
		change(&m)
		return m
	}
	// most says that more than so many requests left.
	most := func(n int) func(x *scene) string {
		return func(x *scene) string {
			if hits := x.open.seen("/" + x.tag + "/"); len(hits) > n {
				return fmt.Sprintf("%d requests left; there was money for %d", len(hits), n)
			}
			spent := x.number(x.t, `SELECT coalesce(sum(amount_nanos), 0)::bigint FROM ledger_transfers t JOIN sessions s USING (org_id)
				WHERE t.session_id = s.id AND s.agent_id = $1 AND t.kind = 'capture'`, x.agent)
			if spent > int64(n+1)*requestPrice {
				return fmt.Sprintf("%d nano-dollars were captured", spent)
			}
			return ""
		}
	}
	many := func(n int) (paths []string) {
		for i := range n {
			paths = append(paths, fmt.Sprintf("n%d", i))
		}
		return paths
	}
	enough := func(m may) *may {
		m.limits, m.budget = nil, 100*cent
		return &m
	}
	ceiling := web(func(m *may) { m.limits = map[string]any{"max_cost": dollars(2*requestPrice + requestPrice/2)} })
	budget := web(func(m *may) { m.budget = 3*requestPrice + requestPrice/2 })
	// together plays eight sessions of one agent at the same time.
	together := func(x *scene) {
		var sessions []string
		for i := range 8 {
			tag := fmt.Sprintf("%s-%d", x.tag, i)
			x.provider.Script(tag, provider.Turn{Calls: []provider.Call{request(x.openURL(fmt.Sprintf("n%d", i)))}, Wait: x.hold})
			sessions = append(sessions, x.begin(tag))
		}
		for i := range sessions {
			x.provider.WaitForRequest(x.t, fmt.Sprintf("%s-%d", x.tag, i), 1)
		}
		close(x.hold) // all of them want their request at once
		for _, one := range sessions {
			x.session = one
			status, stop := x.rest(one)
			events := x.journal(one)
			x.sound(one, events)
			x.events = append(x.events, events...)
			if x.stop == "" || stop != `{"type":"end_turn"}` {
				x.status, x.stop = status, stop
			}
		}
	}
	forEver := func(x *scene) (turns []provider.Turn) {
		for i := range 12 {
			turns = append(turns, provider.Turn{Calls: []provider.Call{request(x.openURL(fmt.Sprintf("n%d", i)))}})
		}
		return turns
	}
	edit := may{tools: []string{"write_file", "edit_file"}}
	return []attack{
		{
			kind: kind, name: "twelve requests in one answer, under a ceiling for two", may: ceiling, says: asking(many(12)...), forbidden: most(2),
			why: stopped(`"budget_reached".*"scope": ?"session"`), twin: asking("n0", "n1"), done: answeredBy("n0", "n1"),
		},
		{
			kind: kind, name: "eight sessions at once, on a budget for three requests", may: budget, course: together, forbidden: most(3),
			why: denied(5, "hold: .*“a[0-9]+”"), twinMay: enough(budget), twinCourse: together, done: answeredBy(many(8)...),
		},
		{
			kind: kind, name: "the budget is lowered while it thinks", may: web(func(m *may) { m.budget = 10 * requestPrice }),
			says: func(x *scene) []provider.Turn {
				return []provider.Turn{{Calls: []provider.Call{request(x.openURL("n0"))}, Wait: x.hold}}
			},
			during: func(x *scene) {
				x.provider.WaitForRequest(x.t, x.tag, 1)
				x.budget(requestPrice / 2)
				close(x.hold)
			},
			forbidden: most(0), why: denied(1, "hold: .*"), twin: asking("n0"), done: answeredBy("n0"),
		},
		{
			kind: kind, name: "a command's time that its ceiling does not cover", machine: true,
			may:  may{tools: []string{"bash"}, limits: map[string]any{"max_cost": dollars(minutePrice - 1)}},
			says: func(*scene) []provider.Turn { return atOnceTurn(bash("date > began; sleep 3600")) },
			forbidden: func(x *scene) string {
				if x.number(x.t, `SELECT count(*) FROM sandboxes WHERE session_id = $1`, x.session) > 0 {
					return "a sandbox was claimed"
				}
				return most(0)(x)
			},
			why: denied(1, "hold: "), twinMay: &may{tools: []string{"bash"}, limits: map[string]any{"max_cost": dollars(2 * minutePrice)}},
			twin: func(*scene) []provider.Turn { return oneByOne(bash("echo done > done")) },
			done: func(x *scene) string {
				if x.content("done") == "done\n" {
					return ""
				}
				return "the command was not done"
			},
		},
		{
			kind: kind, name: "a command's time that makes no sense", may: may{tools: []string{"bash"}}, machine: true,
			says: func(*scene) []provider.Turn {
				var calls []provider.Call
				for _, n := range []string{"-1", "0", "3601", "1e300", "0.0001", `"3"`, "null", "99999999999999999999"} {
					calls = append(calls, provider.Call{Name: "bash", Arguments: `{"command":"true","timeout_seconds":` + n + `}`})
				}
				return atOnceTurn(calls...)
			},
			forbidden: began, why: answered(8, "The arguments of bash are not valid, and nothing was done"), twin: func(*scene) []provider.Turn { return oneByOne(bash("echo done > done")) },
			done: func(x *scene) string {
				if x.content("done") == "done\n" {
					return ""
				}
				return "the command was not done"
			},
		},
		{
			kind: kind, name: "never coming to an end", may: web(func(m *may) { m.limits = map[string]any{"max_steps": 5} }), says: forEver, forbidden: func(x *scene) string {
				if n := x.provider.Requests(x.tag); n > 3 {
					return fmt.Sprintf("the model was called %d times", n)
				}
				return most(2)(x)
			},
			why: stopped(`"budget_reached".*"limit": ?"steps"|"limit": ?"steps".*"budget_reached"`), twin: asking("n0"), done: answeredBy("n0"),
		},
		{
			kind: kind, name: "more tokens than it may use", may: web(func(m *may) { m.limits = map[string]any{"max_tokens": 40} }), says: forEver, forbidden: func(x *scene) string {
				if n := x.provider.Requests(x.tag); n > 3 {
					return fmt.Sprintf("the model was called %d times", n)
				}
				return ""
			},
			why: stopped(`"limit": ?"tokens"`), twin: asking("n0"), done: answeredBy("n0"),
		},
		{
			kind: priceless, name: "a tool that has no price", may: edit, machine: true,
			says: func(*scene) []provider.Turn {
				return atOnceTurn(provider.Call{Name: "edit_file", Arguments: arguments("path", "a", "old_text", "b", "new_text", "c")})
			},
			forbidden: began, why: denied(1, "price: There is no price for the tool"),
			twin: func(*scene) []provider.Turn { return oneByOne(write("a", "c")) }, done: func(x *scene) string {
				if x.content("a") == "c" {
					return ""
				}
				return "the file was not written"
			},
		},
		{
			kind: priceless, name: "a price of its own making", may: web(func(*may) {}),
			says: func(x *scene) []provider.Turn {
				return atOnceTurn(
					provider.Call{Name: "http_request", Arguments: arguments("url", x.openURL("n0"), "price", 0)},
					provider.Call{Name: "http_request", Arguments: arguments("url", x.openURL("n1"), "hold", map[string]any{"id": "hld_0", "amount": 0}, "admission", "granted")},
				)
			},
			forbidden: reached, why: answered(2, "The arguments of http_request are not valid, and nothing was done"), twin: asking("n0"), done: answeredBy("n0"),
		},
	}
}
