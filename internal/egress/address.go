package egress

import "net/netip"

// forbidden4 are the IPv4 networks that are not the public Internet, or that stand for a machine's own surroundings.
var forbidden4 = prefixes(map[string]string{
	"0.0.0.0/8":          "this machine",
	"10.0.0.0/8":         "a private network",
	"100.64.0.0/10":      "a carrier's network", // with Alibaba's metadata service, 100.100.100.200
	"127.0.0.0/8":        "this machine",
	"168.63.129.16/32":   "a cloud's own services", // Azure's, though the address looks public
	"169.254.0.0/16":     "the local link",         // with the metadata services of most clouds, 169.254.169.254
	"172.16.0.0/12":      "a private network",
	"192.0.0.0/24":       "a reserved network",
	"192.0.2.0/24":       "a network for documentation",
	"192.88.99.0/24":     "a relay of 6to4",
	"192.168.0.0/16":     "a private network",
	"198.18.0.0/15":      "a network for benchmarks",
	"198.51.100.0/24":    "a network for documentation",
	"203.0.113.0/24":     "a network for documentation",
	"224.0.0.0/4":        "a multicast group",
	"240.0.0.0/4":        "a reserved network",
	"255.255.255.255/32": "every machine here",
})

// public6 is the only part of IPv6 that is handed out; in it are a few networks that lead back into IPv4 or nowhere. All else, unique local
// addresses, the local link, multicast, NAT64 and addresses mapped from IPv4, lies outside.
var (
	public6    = netip.MustParsePrefix("2000::/3")
	forbidden6 = prefixes(map[string]string{
		"2001::/23":     "a reserved network", // with Teredo
		"2001:db8::/32": "a network for documentation",
		"2002::/16":     "an IPv4 address in disguise (6to4)",
		"3fff::/20":     "a network for documentation",
	})
)

type named struct {
	netip.Prefix
	what string
}

func prefixes(m map[string]string) []named {
	out := make([]named, 0, len(m))
	for p, what := range m {
		out = append(out, named{netip.MustParsePrefix(p), what})
	}
	return out
}

// Inside says what an address stands for that is not the public Internet; "" is a public one.
func Inside(a netip.Addr) string {
	if !a.IsValid() {
		return "no address"
	}
	if a.Is4In6() {
		if what := Inside(a.Unmap()); what != "" {
			return what
		}
		return "an IPv4 address in disguise"
	}
	if a.Zone() != "" {
		return "the local link"
	}
	list := forbidden4
	if a.Is6() {
		if a.IsLoopback() || a.IsUnspecified() {
			return "this machine"
		}
		if !public6.Contains(a) {
			return "no public network"
		}
		list = forbidden6
	}
	for _, n := range list {
		if n.Contains(a) {
			return n.what
		}
	}
	return ""
}
