package egress_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/egress"
)

// spellings are addresses as people, parsers and attackers write them. want is the origin that they are read as; "" is a refusal.
var spellings = []struct{ raw, want string }{
	{"https://example.com", "https://example.com"},
	{"HTTPS://EXAMPLE.Com/Path?Q#f", "https://example.com"},
	{"http://example.com.", "http://example.com"},
	{"http://example.com:80/", "http://example.com"},
	{"http://example.com:", "http://example.com"},
	{"https://example.com:8443/", "https://example.com:8443"},
	{"https://bücher.example", "https://xn--bcher-kva.example"},
	{"https://BÜCHER.example", "https://xn--bcher-kva.example"},
	{"https://xn--bcher-kva.example", "https://xn--bcher-kva.example"},
	{"https://exаmple.com", "https://xn--exmple-4nf.com"}, // a Cyrillic а: another host, whatever it looks like
	{"https://ｅｘａｍｐｌｅ．ｃｏｍ", "https://example.com"},
	{"https://example。com", "https://example.com"},
	{"http://93.184.215.14/", "http://93.184.215.14"},
	{"http://[2606:2800:21f:cb07::1]:8080/", "http://[2606:2800:21f:cb07::1]:8080"},
	{"http://[2606:2800:021F:CB07:0:0:0:1]/", "http://[2606:2800:21f:cb07::1]"},
	{"http://r3---sn-abc.example.com/", "http://r3---sn-abc.example.com"},

	{"http://2130706433/", ""}, // 127.0.0.1 as one number
	{"http://017700000001/", ""},
	{"http://0x7f000001/", ""},
	{"http://0x7f.0.0.1/", ""},
	{"http://0177.0.0.1/", ""},
	{"http://127.1/", ""},
	{"http://127.0.1/", ""},
	{"http://127.0.0.1./", ""},
	{"http://127.0.0.01/", ""},
	{"http://127.0.0.0x1/", ""},
	{"http://1.2.3.4.5/", ""},
	{"http://256.256.256.256/", ""},
	{"http://１２７.0.0.1/", ""},
	{"http://①②⑦.0.0.1/", ""},
	{"http://127。0。0。1/", ""},
	{"http://0/", ""},
	{"http://0x/", ""},
	{"http://foo.0x7f/", ""},
	{"http://[::ffff:127.0.0.1]/", ""},
	{"http://[::ffff:7f00:1]/", ""},
	{"http://[fe80::1%25eth0]/", ""},
	{"http://[127.0.0.1]/", ""},
	{"http://[::1", ""},
	{"http://::1/", ""},
	{"http://user@example.com/", ""},
	{"http://user:secret@example.com/", ""},
	{"http://example.com@127.0.0.1/", ""},
	{`http://example.com\@127.0.0.1/`, ""},
	{"http://example.com /", ""},
	{" http://example.com/", ""},
	{"http://example.com\r\nHost: x/", ""},
	{"http://exa\tmple.com/", ""},
	{"http://%31%32%37.0.0.1/", ""},
	{"http://metadata/", ""},
	{"http://postgres:5432/", ""},
	{"http://example.com:0/", ""},
	{"http://example.com:65536/", ""},
	{"http://example.com:+80/", ""},
	{"http://example.com:080/", ""},
	{"http://exam_ple.com/", ""},
	{"http://-.example.com..", ""},
	{"http://.example.com/", ""},
	{"http://", ""},
	{"http:///path", ""},
	{"http:example.com", ""},
	{"//example.com", ""},
	{"example.com", ""},
	{"ftp://example.com/", ""},
	{"file:///etc/passwd", ""},
	{"gopher://example.com/", ""},
	{"javascript:alert(1)", ""},
	{"unix:///run/docker.sock", ""},
}

func TestEverySpellingOfAnAddress(t *testing.T) {
	for _, s := range spellings {
		target, err := egress.ParseURL(s.raw)
		if s.want == "" {
			var refusal *egress.Refusal
			require.ErrorAs(t, err, &refusal, "%q was read as %v", s.raw, target)
			require.Equal(t, egress.BadURL, refusal.Code, s.raw)
			require.NotContains(t, refusal.Message, "secret")
			continue
		}
		require.NoError(t, err, s.raw)
		require.Equal(t, s.want, target.Origin(), s.raw)
	}
}

func TestWhichAddressesAreInside(t *testing.T) {
	for _, inside := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
		"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
		"2002:7f00:1::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1",
	} {
		require.NotEmpty(t, egress.Inside(netip.MustParseAddr(inside)), inside)
	}
	for _, public := range []string{"1.1.1.1", "8.8.8.8", "93.184.215.14", "100.128.0.1", "172.32.0.1", "169.253.1.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:4860::8888"} {
		require.Empty(t, egress.Inside(netip.MustParseAddr(public)), public)
	}
	require.NotEmpty(t, egress.Inside(netip.Addr{}))
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule, url string
		allows    bool
	}{
		{"api.example.com", "https://api.example.com/", true},
		{"api.example.com", "http://API.example.com./", true},
		{"api.example.com", "https://api.example.com:8443/", false},
		{"api.example.com:8443", "https://api.example.com:8443/", true},
		{"api.example.com:8443", "https://api.example.com/", false},
		{"api.example.com", "https://example.com/", false},
		{"api.example.com", "https://x.api.example.com/", false},
		{"*.example.com", "https://api.example.com/", true},
		{"*.example.com", "https://a.b.example.com/", true},
		{"*.example.com", "https://example.com/", false},
		{"*.example.com", "https://badexample.com/", false},
		{"*.example.com", "https://example.com.evil.test/", false},
		{"Bücher.example", "https://xn--bcher-kva.example/", true},
		{"example.com", "https://exаmple.com/", false},
		{"93.184.215.14", "http://93.184.215.14/", true},
		{"[2606:4700::1111]", "https://[2606:4700:0::1111]/", true},
		{"2606:4700::1111", "https://[2606:4700::1111]/", true},
		{"[2606:4700::1111]:8443", "https://[2606:4700::1111]/", false},
	} {
		rules, _, err := egress.ParseRules([]string{c.rule})
		require.NoError(t, err, c.rule)
		target, err := egress.ParseURL(c.url)
		require.NoError(t, err, c.url)
		require.Equal(t, c.allows, rules.Allow(target), "%s and %s", c.rule, c.url)
	}
	for _, bad := range []string{
		"", "*", "*.", "*.com", "*.co.uk", "*.*.example.com", "api.*.com", "https://example.com", "example.com/path", "user@example.com",
		"example.com:25", "example.com:6379x", "example.com:", "2130706433", "*.93.184.215.14", "localmachine", "exa mple.com", "[::ffff:1.2.3.4]",
	} {
		_, at, err := egress.ParseRules([]string{"good.example", bad})
		require.Error(t, err, bad)
		require.Equal(t, 1, at)
	}
	target, err := egress.ParseURL("https://example.com/")
	require.NoError(t, err)
	require.False(t, egress.Rules(nil).Allow(target), "no rules allow nothing")
	rule, err := egress.ParseRule("*.BÜCHER.example:8443")
	require.NoError(t, err)
	require.Equal(t, "*.xn--bcher-kva.example:8443", rule.String())
}

func FuzzParseHost(f *testing.F) {
	for _, s := range spellings {
		f.Add(s.raw)
	}
	for _, s := range []string{"example.com", "127.0.0.1", "0x7f.1", "[::1]", "::ffff:1.2.3.4", "xn--bcher-kva.example", "ａ.ｂ", "*.a.b", "a..b", "localhost"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		host, err := egress.ParseHost(raw)
		if err != nil {
			return
		}
		spelling := host.String()
		again, err := egress.ParseHost(spelling)
		require.NoError(t, err, "%q was read as %q, which can't be read", raw, spelling)
		require.Equal(t, host, again, "%q has two spellings", raw)
		addr, isAddr := host.Addr()
		parsed, parseErr := netip.ParseAddr(spelling)
		require.Equal(t, isAddr, parseErr == nil, "%q: an address that is taken for a name, or the reverse", raw)
		if isAddr {
			require.Equal(t, parsed, addr)
			require.False(t, addr.Is4In6())
			require.Empty(t, addr.Zone())
		}
		for _, r := range spelling {
			require.True(t, r == '.' || r == '-' || r == ':' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z'), "%q holds %q", spelling, r)
		}
	})
}

func FuzzParseURL(f *testing.F) {
	for _, s := range spellings {
		f.Add(s.raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		target, err := egress.ParseURL(raw)
		if err != nil {
			return
		}
		again, err := egress.ParseURL(target.String())
		require.NoError(t, err, "%q was read as %q", raw, target)
		require.Equal(t, target.Origin(), again.Origin())
		require.Equal(t, target.Host, again.Host)
	})
}
