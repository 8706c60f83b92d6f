package hostile

import (
	"fmt"
	"net/http"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/provider"
)

// afterTheEnd are attacks that go on when the session was ended, its agent was stopped, or what it may do was taken back.
func (s *stage) afterTheEnd() []attack {
	const kind = "going on after its end"
	web := may{tools: []string{"http_request"}, hosts: []string{"127.0.0.1:" + s.open.port}}
	order := func(x *scene, path string, body any) {
		x.t.Helper()
		status, raw := x.admin.Raw(http.MethodPost, path, body)
		require.Contains(x.t, []int{http.StatusOK, http.StatusAccepted}, status, "%s", raw)
	}
	// thinking asks for three requests once it may answer.
	thinking := func(x *scene) []provider.Turn {
		return []provider.Turn{{Calls: []provider.Call{request(x.openURL("n0")), request(x.openURL("n1")), post(x.openURL("n2"))}, Wait: x.hold}}
	}
	// meanwhile does something while the model thinks, and lets it answer then.
	meanwhile := func(do func(x *scene)) func(x *scene) {
		return func(x *scene) {
			x.provider.WaitForRequest(x.t, x.tag, 1)
			do(x)
			close(x.hold)
		}
	}
	nothing := meanwhile(func(*scene) {})
	// underWay does something while the first of several calls is under way.
	underWay := func(do func(x *scene)) func(x *scene) {
		return func(x *scene) {
			require.Eventually(x.t, func() bool { return len(x.shut.seen("/"+x.tag+"/")) == 1 }, time.Minute, 10*time.Millisecond, "the first call did not leave")
			do(x)
		}
	}
	slowly := may{tools: []string{"http_request"}, hosts: []string{"127.0.0.1:" + s.open.port, "127.0.0.1:" + s.shut.port}}
	first := func(x *scene) []provider.Turn {
		return []provider.Turn{{Calls: []provider.Call{request(x.shutURL("slow")), request(x.openURL("n1")), post(x.openURL("n2"))}}, {Calls: []provider.Call{request(x.openURL("n3"))}}}
	}
	row := func(name string, w why, during func(x *scene)) attack {
		return attack{kind: kind, name: name, may: web, says: thinking, during: during, forbidden: reached, why: w, twin: thinking, twinDuring: nothing, done: answeredBy("n0", "n1", "n2")}
	}
	later := func(x *scene) string {
		if hits := x.open.seen("/" + x.tag + "/"); len(hits) > 0 {
			return fmt.Sprintf("reached after the end: %v", hits)
		}
		return ""
	}
	between := func(name string, w why, do func(x *scene)) attack {
		return attack{
			kind: kind, name: name, may: slowly, says: first, during: underWay(do), forbidden: later, why: w,
			twin: asking("n0", "n1"), done: answeredBy("n0", "n1"),
		}
	}
	kill := func(x *scene) {
		order(x, "/v1/sessions/"+x.session+"/kill", map[string]any{"reason": "it is hostile"})
	}
	late := row("its time is over when it answers", stopped(`"limit": ?"wall_time"`), func(x *scene) {
		x.provider.WaitForRequest(x.t, x.tag, 1)
		time.AfterFunc(1500*time.Millisecond, func() { close(x.hold) })
	})
	late.may.limits, late.twinMay = map[string]any{"max_wall_seconds": 1}, &web
	beat := may{tools: []string{"bash"}}
	return []attack{
		row("its session is killed while it thinks", stopped(`"killed"`), meanwhile(kill)),
		row("its agent is stopped while it thinks", stopped(`"killed"`), meanwhile(func(x *scene) {
			order(x, "/v1/agents/"+x.agent+"/stop", map[string]any{"reason": "it is hostile"})
			x.rest(x.session)
		})),
		row("the permission is taken back while it thinks", denied(3, "A rule of this organisation denies the tool http_request.*Not any more"), meanwhile(func(x *scene) {
			x.rule(deny(rule{"name": "http_request", "description": "Not any more."}))
		})),
		late,
		between("its session is killed between two of its calls", stopped(`"killed"`), kill),
		between("it is interrupted between two of its calls", stopped(`"interrupted"`), func(x *scene) {
			order(x, "/v1/sessions/"+x.session+"/events", map[string]any{"events": []any{map[string]any{"type": "user.interrupt"}}})
		}),
		{
			kind: kind, name: "calls after its answer has ended", may: web,
			says: func(x *scene) []provider.Turn {
				return []provider.Turn{
					{Calls: []provider.Call{{Name: "nothing", Arguments: "{}"}}, After: []string{provider.PieceOf(7, "late", "http_request", arguments("url", x.openURL("late"))), "[DONE]"}},
				}
			},
			forbidden: reached, why: denied(1, "The tool nothing is not among"), twin: asking("hello"), done: answeredBy("hello"),
		},
		{
			kind: kind, name: "a call in an answer that breaks off", may: web,
			says: func(x *scene) []provider.Turn {
				return []provider.Turn{{Calls: []provider.Call{post(x.openURL("cut"))}, Cut: true}}
			},
			forbidden: reached, why: failed("stream ended"), twin: asking("hello"), done: answeredBy("hello"),
		},
		{
			kind: kind, name: "a command that will not end", may: beat, machine: true,
			says: func(*scene) []provider.Turn {
				return atOnceTurn(bash("trap '' TERM INT HUP; (setsid sh -c 'while true; do date >> beat; sleep 0.1; done' &) ; while true; do sleep 1; done"))
			},
			during: func(x *scene) {
				require.Eventually(x.t, func() bool { return x.content("beat") != "" }, time.Minute, 100*time.Millisecond, "the command did not begin")
				kill(x)
			},
			forbidden: func(x *scene) string {
				if n := x.number(x.t, `SELECT count(*) FROM sandboxes WHERE session_id = $1 AND state <> 'ended'`, x.session); n > 0 {
					return "its machine goes on"
				}
				return ""
			},
			why: stopped(`"killed"`), twin: func(*scene) []provider.Turn { return oneByOne(bash("echo once > beat; sleep 1")) },
			done: func(x *scene) string {
				if x.content("beat") == "once\n" {
					return ""
				}
				return "the command was not done"
			},
		},
	}
}
