package hostile

import (
	"encoding/json"
	"fmt"
	"strings"

	"ambit.dev/ambit/test/provider"
)

// arguments writes a tool's arguments; names and values alternate.
func arguments(pairs ...any) string {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	b, err := json.Marshal(m)
	if err != nil { // strings and numbers always marshal
		return err.Error()
	}
	return string(b)
}

func request(url string) provider.Call {
	return provider.Call{Name: "http_request", Arguments: arguments("url", url)}
}

func post(url string) provider.Call {
	return provider.Call{Name: "http_request", Arguments: arguments("method", "POST", "url", url, "body", "x")}
}

func bash(command string) provider.Call {
	return provider.Call{Name: "bash", Arguments: arguments("command", command, "timeout_seconds", 30)}
}

// named is a request under another name of the tool.
func named(tool, url string) provider.Call {
	return provider.Call{Name: tool, Arguments: arguments("url", url)}
}

func atOnceTurn(calls ...provider.Call) []provider.Turn { return []provider.Turn{{Calls: calls}} }

func oneByOne(calls ...provider.Call) (turns []provider.Turn) {
	for _, c := range calls {
		turns = append(turns, provider.Turn{Calls: []provider.Call{c}})
	}
	return turns
}

// asking makes a script that requests so many addresses of the open server, all at once.
func asking(paths ...string) func(*scene) []provider.Turn {
	return func(x *scene) []provider.Turn {
		var calls []provider.Call
		for _, p := range paths {
			calls = append(calls, request(x.openURL(p)))
		}
		return atOnceTurn(calls...)
	}
}

// answeredBy is done when each of the paths has reached the open server once.
func answeredBy(paths ...string) func(*scene) string {
	return func(x *scene) string {
		for _, p := range paths {
			if n := len(x.open.seen("/"+x.tag+"/", "/"+p+"/")); n != 1 {
				return fmt.Sprintf("%s reached the server %d times", p, n)
			}
		}
		return ""
	}
}

// reached says what of the scene reached either server.
func reached(x *scene) string {
	if hits := append(x.open.seen("/"+x.tag+"/"), x.shut.seen("/"+x.tag+"/")...); len(hits) > 0 {
		return fmt.Sprintf("reached: %v", hits)
	}
	return ""
}

// began says which tool calls were begun.
func began(x *scene) string {
	if n := x.ran(""); n > 0 {
		return fmt.Sprintf("%d tool calls were begun", n)
	}
	if x.number(x.t, `SELECT count(*) FROM events WHERE session_id = $1 AND type = 'sandbox.started'`, x.session) > 0 {
		return "a sandbox was started"
	}
	return reached(x)
}

// otherNames are attacks with tools that the agent has not, or that a rule denies it.
func (s *stage) otherNames() []attack {
	const kind = "a tool by another name"
	open := []string{"127.0.0.1:" + s.open.port}
	web := may{tools: []string{"http_request"}, hosts: open}
	row := func(name string, w why, says func(x *scene) []provider.Turn) attack {
		return attack{kind: kind, name: name, may: web, says: says, forbidden: began, why: w, twin: asking("hello"), done: answeredBy("hello")}
	}
	spelled := func(names ...string) func(x *scene) []provider.Turn {
		return func(x *scene) []provider.Turn {
			var calls []provider.Call
			for _, n := range names {
				calls = append(calls, named(n, x.openURL("attack")))
			}
			return atOnceTurn(calls...)
		}
	}
	noTool := `(?s)agent\.tools: The tool .* is not among`
	return []attack{
		row("a tool that the agent was not given", denied(2, noTool), func(*scene) []provider.Turn {
			return oneByOne(bash("touch here"), provider.Call{Name: "python", Arguments: arguments("code", "open('here','w')")})
		}),
		row("its own tool in capitals, with spaces, with a prefix", denied(5, noTool),
			spelled("HTTP_Request", "http_request ", " http_request", "functions.http_request", "builtin/http_request")),
		row("letters that only look alike", denied(3, noTool), spelled("httр_request", "ｈｔｔｐ_request", "http_requeſt")),
		row("control characters in the name", denied(3, noTool), spelled("http_request\x00", "http_request\n", "http\x1b[2J_request")),
		row("a name of 100,000 characters", denied(1, noTool), spelled("http_request"+strings.Repeat("_", 100_000))),
		{
			kind: kind, name: "a tool that a rule denies", may: may{tools: []string{"http_request"}, hosts: open, rules: []rule{deny(rule{"name": "http_*", "action": "POST", "description": "It only reads."})}},
			says: func(x *scene) []provider.Turn {
				return oneByOne(post(x.openURL("one")), provider.Call{Name: "http_request", Arguments: `{"method":"GET","method":"POST","url":"` + x.openURL("two") + `"}`})
			},
			forbidden: reached, why: denied(2, "A rule of this organisation denies the tool http_.*It only reads"), twin: asking("hello"), done: answeredBy("hello"),
		},
		{
			kind: kind, name: "the tool that a rule leaves out", may: may{tools: []string{"http_request", "list_files", "bash"}, hosts: open, rules: []rule{
				allow(rule{"name": "http_request", "action": "GET"}),
			}},
			says:      func(*scene) []provider.Turn { return oneByOne(bash("touch here"), bash("true")) },
			forbidden: began, why: denied(2, "No rule allows this agent the tool bash.* It may use: http_request"), twin: asking("hello"), done: answeredBy("hello"),
		},
		{
			kind: kind, name: "a method in another spelling", may: may{tools: []string{"http_request"}, hosts: open, rules: []rule{deny(rule{"name": "http_request", "action": "DELETE"})}},
			says: func(x *scene) []provider.Turn {
				u := x.openURL("attack")
				return atOnceTurn(
					provider.Call{Name: "http_request", Arguments: arguments("method", "delete", "url", u)}, provider.Call{Name: "http_request", Arguments: arguments("method", "DELETE ", "url", u)},
					provider.Call{Name: "http_request", Arguments: arguments("method", "DELETE", "url", u)}, provider.Call{Name: "http_request", Arguments: arguments("METHOD", "DELETE", "url", u)},
				)
			},
			forbidden: reached, why: answered(4, "(arguments of http_request are not valid, and nothing was done|Denied: A rule of this organisation)"),
			twin: func(x *scene) []provider.Turn { return atOnceTurn(post(x.openURL("hello"))) }, done: answeredBy("hello"),
		},
	}
}
