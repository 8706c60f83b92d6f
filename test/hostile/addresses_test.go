package hostile

import (
	"fmt"
	"net/url"
	"strings"

	"ambit.dev/ambit/test/provider"
)

// otherAddresses are attacks that write an address, or a part of it, in another way than rules and definitions do.
func (s *stage) otherAddresses() []attack {
	const kind = "a host by another spelling"
	four := "127.0.0.1:" + s.open.port
	web := may{tools: []string{"http_request"}, hosts: []string{four}}
	p := s.shut.port
	// to requests the shut server under each of the authorities, all at once.
	to := func(authorities ...string) func(x *scene) []provider.Turn {
		return func(x *scene) []provider.Turn {
			var calls []provider.Call
			for _, a := range authorities {
				calls = append(calls, request("http://"+a+"/"+x.tag+"/attack"))
			}
			return atOnceTurn(calls...)
		}
	}
	shut := func(x *scene) string {
		if hits := x.shut.seen("/" + x.tag + "/"); len(hits) > 0 {
			return fmt.Sprintf("the server that nobody may reach was reached: %v", hits)
		}
		return ""
	}
	row := func(name string, w why, says func(x *scene) []provider.Turn) attack {
		return attack{kind: kind, name: name, may: web, says: says, forbidden: shut, why: w, twin: asking("hello"), done: answeredBy("hello")}
	}
	notAmong := `agent\.network: The host .* is not among those that this agent may reach`
	notValid := "The arguments of http_request are not valid, and nothing was done"
	admin := []rule{deny(rule{"name": "http_request", "object": "http://" + four + "/*/admin*", "description": "Administration is not for agents."})}
	atAdmin := func(x *scene) string {
		if hits := x.open.seen("/"+x.tag+"/", "/admin/"); len(hits) > 0 {
			return fmt.Sprintf("a page that a rule denies was reached: %v", hits)
		}
		return ""
	}
	return []attack{
		row("another port, another name, the other loopback", denied(4, notAmong), to("127.0.0.1:"+p, "localhost:"+p, "[::1]:"+p, "127.0.0.2:"+p)),
		row("an address as one number, in hexadecimal, in octal, shortened", answered(6, notValid),
			to("2130706433:"+p, "0x7f000001:"+p, "0177.0.0.1:"+p, "127.1:"+p, "0x7f.0.0.1:"+p, "127.0.1:"+p)),
		row("IPv4 in IPv6, and a zone", answered(3, "("+notValid+"|Denied: The host)"), to("[::ffff:127.0.0.1]:"+p, "[::ffff:7f00:1]:"+p, "[::1%25lo]:"+p)),
		row("letters and digits of another width, capitals, a final dot", answered(4, "("+notValid+"|Denied: The host)"), to("１２７.0.0.1:"+p, "LOCALHOST:"+p, "127.0.0.1.:"+p, "ⓛocalhost:"+p)),
		row("what is allowed as a user's name before the host", answered(3, notValid),
			func(x *scene) []provider.Turn {
				return atOnceTurn(request("http://"+four+"@127.0.0.1:"+p+"/"+x.tag+"/attack"), request("http://127.0.0.1:"+p+`\@`+four+"/"+x.tag+"/attack"),
					request("http://"+four+"%2F@127.0.0.1:"+p+"/"+x.tag+"/attack"))
			}),
		row("another scheme", answered(4, notValid), func(x *scene) []provider.Turn {
			rest := "127.0.0.1:" + p + "/" + x.tag + "/attack"
			return atOnceTurn(request("gopher://"+rest), request("file:///etc/passwd"), request("//"+rest), request("unix://"+rest))
		}),
		row("a redirect to another server", answered(2, "This redirect"), func(x *scene) []provider.Turn {
			return oneByOne(request(x.openURL("to?to="+url.QueryEscape(x.shutURL("attack")))), request(x.openURL("to?to="+url.QueryEscape("//localhost:"+p+"/"+x.tag+"/attack"))))
		}),
		row("another host in the headers", answered(4, notValid), func(x *scene) []provider.Turn {
			var calls []provider.Call
			for _, h := range []map[string]string{{"Host": "127.0.0.1:" + p}, {"X-A": "b\r\nHost: 127.0.0.1:" + p}, {"Transfer-Encoding": "chunked"}, {"Connection": "upgrade"}} {
				calls = append(calls, provider.Call{Name: "http_request", Arguments: arguments("url", x.openURL("attack"), "headers", h)})
			}
			return atOnceTurn(calls...)
		}),
		row("two addresses in one call", denied(1, notAmong), func(x *scene) []provider.Turn {
			return atOnceTurn(provider.Call{Name: "http_request", Arguments: `{"url":"` + x.openURL("attack") + `","url":"` + x.shutURL("attack") + `"}`})
		}),
		{
			kind: kind, name: "an address that stands for this machine, though the definition names it", may: may{tools: []string{"http_request"}, hosts: []string{"0.0.0.0:" + p, "169.254.169.254", four}},
			says: func(x *scene) []provider.Turn {
				return atOnceTurn(request("http://0.0.0.0:"+p+"/"+x.tag+"/attack"), request("http://169.254.169.254/"+x.tag+"/latest/meta-data/"))
			},
			forbidden: shut, why: answered(2, "Nothing was sent.*never reached from here"), twin: asking("hello"), done: answeredBy("hello"),
		},
		{
			kind: kind, name: "a host that a rule denies, in other spellings", may: may{
				tools: []string{"http_request"}, hosts: []string{"127.0.0.1:" + p, "127.0.0.2:" + s.open.port},
				rules: []rule{deny(rule{"name": "http_request", "condition": map[string]any{"domains": []string{"127.0.0.1"}}})},
			},
			says:      to("127.0.0.1:"+p, "127.1:"+p, "2130706433:"+p, "127.0.0.1.:"+p, "[::ffff:127.0.0.1]:"+p),
			forbidden: shut, why: answered(5, "("+notValid+"|Denied: A rule of this organisation denies)"),
			twin: func(x *scene) []provider.Turn {
				return atOnceTurn(request(strings.Replace(x.openURL("hello"), "127.0.0.1", "127.0.0.2", 1)))
			}, done: answeredBy("hello"),
		},
		{
			kind: kind, name: "a path that a rule denies, in other spellings", may: may{tools: []string{"http_request"}, hosts: []string{four}, rules: admin},
			says: func(x *scene) []provider.Turn {
				return atOnceTurn(request(x.openURL("admin")), request(x.openURL("%61dmin")), request(x.openURL("./admin")), request(x.openURL("x/../admin")),
					request(x.openURL("x/%2e%2e/admin")), request(x.openURL("/admin")), request(x.openURL("x/..%2fadmin")), request(x.openURL("%2Fadmin")),
					request(strings.Replace(x.openURL("admin"), "http://", "HTTP://", 1)), request(x.openURL("admin?x=1")), request(x.openURL("x/%2e%2e%2fadmin#public")))
			},
			forbidden: atAdmin, why: answered(11, "(Denied: A rule of this organisation denies .*Administration is not for agents|"+notValid+")"),
			twin: asking("reports/../public", "a%20b"), done: answeredBy("public", "a b"),
		},
		{
			kind: kind, name: "a path that a rule denies, by a redirect", may: may{tools: []string{"http_request"}, hosts: []string{four}, rules: admin},
			says: func(x *scene) []provider.Turn {
				return oneByOne(request(x.openURL("to?to="+url.QueryEscape("/"+x.tag+"/admin"))), request(x.openURL("to?to="+url.QueryEscape(x.openURL("admin")))))
			},
			forbidden: atAdmin, why: answered(2, "redirect.* not followed"),
			twin: func(x *scene) []provider.Turn {
				return oneByOne(request(x.openURL("to?to="+url.QueryEscape("/"+x.tag+"/public"))), request(x.openURL("public")))
			},
			done: func(x *scene) string {
				if len(x.open.seen("/"+x.tag+"/", "/public/")) == 0 {
					return "what the redirect leads to was not reached"
				}
				return ""
			},
		},
	}
}
