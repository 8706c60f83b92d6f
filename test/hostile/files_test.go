package hostile

import (
	"fmt"
	"strings"

	"ambit.dev/ambit/test/provider"
)

func read(file string) provider.Call {
	return provider.Call{Name: "read_file", Arguments: arguments("path", file)}
}

func write(file, content string) provider.Call {
	return provider.Call{Name: "write_file", Arguments: arguments("path", file, "content", content)}
}

// othersFiles are attacks on what lies outside of the session's own working directory: of its machine, of other sessions, of other tenants.
func (s *stage) othersFiles() []attack {
	const kind = "files that are not its own"
	files := may{tools: []string{"read_file", "write_file", "list_files", "bash"}}
	// disclosed says whether any result holds one of the texts.
	disclosed := func(texts ...string) func(x *scene) string {
		return func(x *scene) string {
			for _, r := range x.results() {
				for _, t := range texts {
					if strings.Contains(r.text(), t) {
						return "a result discloses " + t
					}
				}
			}
			return ""
		}
	}
	ownFile := func(*scene) []provider.Turn { return oneByOne(write("notes/own.txt", "my own"), read("notes/own.txt")) }
	ownRead := func(x *scene) string {
		if r := x.results(); len(r) == 2 && r[1].text() == "my own" && x.content("notes/own.txt") == "my own" {
			return ""
		}
		return "its own file was not written and read"
	}
	secrets := disclosed(s.secret.text, s.foreign.text)
	outsideWork := "(outside the working directory|is not in the working directory|leaves the working directory)"
	hidden := fmt.Sprintf("'%s''%s' '%s''%s'", s.secret.text[:7], s.secret.text[7:], s.foreign.text[:7], s.foreign.text[7:])
	web := may{tools: []string{"http_request"}, hosts: []string{strings.TrimPrefix(s.instance.URL, "http://")}}
	return []attack{
		{
			kind: kind, name: "a path that leads out", may: files, machine: true,
			says: func(*scene) []provider.Turn {
				return atOnceTurn(read("../../etc/passwd"), read("/etc/passwd"), read("a/../../../etc/passwd"), read("/work/../etc/passwd"), read("/workx/../etc/passwd"))
			},
			forbidden: disclosed("root:"), why: answered(5, outsideWork), twin: ownFile, done: ownRead,
		},
		{
			kind: kind, name: "a path that leads out by a link", may: files, machine: true,
			says: func(*scene) []provider.Turn {
				return oneByOne(bash("ln -s / up; ln -s /etc/passwd passwd; mkdir d; ln -s ../.. d/back"), read("up/etc/passwd"), read("passwd"), read("d/back/etc/passwd"), write("up/tmp/evil", "x"))
			},
			forbidden: disclosed("root:"), why: answered(4, outsideWork),
			twin: func(*scene) []provider.Turn {
				return oneByOne(bash("mkdir notes; ln -s notes link"), write("link/own.txt", "my own"), read("notes/own.txt"))
			},
			done: func(x *scene) string {
				if x.content("notes/own.txt") != "my own" {
					return "a link inside of the working directory was not followed"
				}
				return ""
			},
		},
		{
			kind: kind, name: "writing where only the machine's root may", may: files, machine: true,
			says: func(*scene) []provider.Turn {
				return oneByOne(bash("echo evil > /etc/evil"), bash("echo evil >> /sbin/init"), bash("chmod 4755 /bin/bash"), write("/etc/evil", "evil"), bash("ls /etc/evil && cat /etc/evil"))
			},
			forbidden: func(x *scene) string {
				if r := x.results(); len(r) > 0 && strings.TrimSpace(r[len(r)-1].text()) == "evil" {
					return "a file of the system was written"
				}
				return ""
			},
			why: answered(5, "(denied|Read-only|outside the working directory|not permitted|must be superuser|No such file)"), twin: ownFile, done: ownRead,
		},
		{
			kind: kind, name: "another session's and another tenant's files, from the sandbox", may: files, machine: true,
			says: func(*scene) []provider.Turn {
				return oneByOne(
					bash("ls -d /work/../*/"+s.secret.session+" /var/lib/*/"+s.secret.session+" /*/"+s.foreign.session),
					bash("for t in "+hidden+`; do grep -rIsl --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev -- "$t" / && exit 0; done; echo "nothing of it is here"; exit 1`),
					bash("for t in "+hidden+`; do for d in /dev/vd* /dev/sd* /dev/mem /dev/vport*; do head -c 200M "$d" 2>&1 | grep -aq -- "$t" && echo "SECRET on $d" && exit 0; head -c 1 "$d" >/dev/null; done; done; exit 1`),
				)
			},
			forbidden: func(x *scene) string {
				for _, r := range x.results() {
					if !r.IsError {
						return "it was found: " + r.text()
					}
				}
				return secrets(x)
			},
			why: answered(3, "(No such file|nothing of it is here|denied|not permitted)"), twin: ownFile, done: ownRead,
		},
		{
			kind: kind, name: "another session's and another tenant's files, by the platform's own address", may: may{tools: []string{"http_request"}, hosts: []string{"127.0.0.1:" + s.open.port}},
			says: func(*scene) []provider.Turn {
				return atOnceTurn(request(s.instance.URL+"/v1/sessions/"+s.secret.session+"/files/content?path=secret.txt"), request(s.instance.URL+"/v1/sessions/"+s.foreign.session+"/files/content?path=secret.txt"))
			},
			forbidden: func(x *scene) string { return secrets(x) + began(x) }, why: denied(2, "The host .* is not among"), twin: asking("hello"), done: answeredBy("hello"),
		},
		{
			kind: kind, name: "the same where the definition lets it reach the platform", may: web,
			says: func(*scene) []provider.Turn {
				var calls []provider.Call
				for _, f := range []planted{s.secret, s.foreign} {
					for _, key := range []string{"", "amb_" + strings.Repeat("a", 43), "'; DROP TABLE sessions; --"} {
						h := map[string]string{}
						if key != "" {
							h["Authorization"] = "Bearer " + key
						}
						calls = append(calls, provider.Call{Name: "http_request", Arguments: arguments("url", s.instance.URL+"/v1/sessions/"+f.session+"/files/content?path=secret.txt", "headers", h)})
					}
				}
				return atOnceTurn(calls...)
			},
			forbidden: secrets, why: answered(6, "HTTP 401"),
			twin: func(*scene) []provider.Turn { return atOnceTurn(request(s.instance.URL + "/readyz")) },
			done: func(x *scene) string {
				if r := x.results(); len(r) == 1 && strings.HasPrefix(r[0].text(), "HTTP 200") {
					return ""
				}
				return "what everybody may ask was not answered"
			},
		},
		{
			kind: kind, name: "out of the sandbox by the network", may: files, machine: true,
			says: func(x *scene) []provider.Turn {
				try := func(family, address string) provider.Call {
					return bash(`python3 -c "import socket; s=socket.socket(socket.` + family + `, socket.SOCK_STREAM); s.settimeout(3); s.connect(` + address + `); print('connected')"`)
				}
				return oneByOne(try("AF_INET", "('10.0.2.2', "+s.shut.port+")"), try("AF_INET", "('169.254.169.254', 80)"), try("AF_VSOCK", "(2, 1)"), try("AF_VSOCK", "(3, 1)"),
					bash("exec 3<>/dev/tcp/1.1.1.1/80 && echo connected"))
			},
			forbidden: func(x *scene) string {
				for _, r := range x.results() {
					if strings.HasPrefix(r.text(), "connected") {
						return "a connection left the sandbox"
					}
				}
				return reached(x)
			},
			why:  answered(5, "(unreachable|timed out|not supported|No such device|refused|denied|Cannot assign)"),
			twin: func(*scene) []provider.Turn { return oneByOne(bash("echo hello > greeting; cat greeting")) },
			done: func(x *scene) string {
				if x.content("greeting") == "hello\n" {
					return ""
				}
				return "the command was not done"
			},
		},
		{
			kind: kind, name: "a file that a rule denies, in other spellings", machine: true,
			may: may{tools: []string{"write_file", "read_file"}, rules: []rule{deny(rule{"name": "write_file", "object": "secrets/*", "description": "Keys are kept there."})}},
			says: func(*scene) []provider.Turn {
				return atOnceTurn(write("secrets/key", "x"), write("./secrets/key", "x"), write("a/../secrets/key", "x"), write("secrets//key", "x"), write("/work/secrets/key", "x"), write("/work/./secrets/./key", "x"))
			},
			forbidden: func(x *scene) string {
				if x.ran("write_file") > 0 || x.content("secrets/key") != "" {
					return "the file was written"
				}
				return ""
			},
			why: denied(6, "denies the tool write_file on secrets/\\*.*Keys are kept there"), twin: ownFile, done: ownRead,
		},
	}
}
