package policy

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func FuzzParseCondition(f *testing.F) {
	for _, s := range []string{
		"", "amount<=5", "amount>5", "hours=540-1080/62", "domain=*.a.test,b.test", "environment=default", "amount<=5;domain=a.test", "hours=0-9999/1", "hours=1-2/300",
		"amount<=-1", "moon=full", "domain=", "amount<=99999999999999999999", ";;", "domain=a.test;domain=b.test",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCondition(s)
		if err == nil && c.text() != s {
			t.Fatalf("%q was read as %q", s, c.text())
		}
	})
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"a.test", "A.Test.", "127.0.0.1", "127.1", "[::1]", "::ffff:1.2.3.4", "bücher.test", "0x7f.1", "", ".", "a..b", "fe80::1%lo", "ａ.test", "-a.test"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := CanonicalHost(s)
		if err != nil {
			if s != "" && plainName(s) {
				t.Fatalf("%q was taken for plain and is refused", s)
			}
			return
		}
		if again, err := CanonicalHost(host); err != nil || again != host {
			t.Fatalf("%q became %q and then %q, %v", s, host, again, err)
		}
		if s != "" && plainName(s) && host != s {
			t.Fatalf("%q was taken for plain and is %q", s, host)
		}
		if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ :/@%,;") {
			t.Fatalf("%q became %q", s, host)
		}
	})
}

func FuzzMatches(f *testing.F) {
	f.Add("a*b", "axxb")
	f.Add("*a*a*", "aaaa")
	f.Add("", "")
	f.Add("a*", "ab")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 200 || len(s) > 200 {
			return
		}
		want := regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(strings.ToValidUTF8(pattern, "")), `\*`, ".*") + "$").MatchString(strings.ToValidUTF8(s, ""))
		if got := matches(strings.ToValidUTF8(pattern, ""), strings.ToValidUTF8(s, "")); got != want {
			t.Fatalf("%q and %q: %v", pattern, s, got)
		}
	})
}
