package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	dialTimeout = 10 * time.Second
	// maxAddresses bounds how many addresses of one name are tried.
	maxAddresses = 4
)

// reachable refuses an address that is never dialled.
func (c *Client) reachable(a netip.Addr) error {
	what := Inside(a)
	if what == "" || (c.cfg.AllowLoopback && a.IsLoopback() && !a.Is4In6()) {
		return nil
	}
	return refuse(Forbidden, "The address %s is %s, which is never reached from here.", a, what)
}

// resolve gives the addresses of a host that may be dialled. A name that has none but forbidden ones is refused.
func (c *Client) resolve(ctx context.Context, h Host) ([]netip.Addr, error) {
	if a, ok := h.Addr(); ok {
		return []netip.Addr{a}, c.reachable(a)
	}
	// The dot at the end keeps the machine's search list out: a name is the whole name.
	found, err := c.cfg.Resolver.LookupNetIP(ctx, "ip", h.name+".")
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var missing *net.DNSError
		if errors.As(err, &missing) && missing.IsNotFound {
			return nil, fmt.Errorf("there is no host %s", h)
		}
		return nil, fmt.Errorf("the name %s could not be resolved", h)
	}
	var good []netip.Addr
	var refused error
	for _, a := range found {
		a = a.Unmap() // the resolver gives A records so; an AAAA record that is mapped is then judged as what it stands for
		if err := c.reachable(a); err != nil {
			refused = refuse(Forbidden, "%s stands for %s, which is %s and never reached from here.", h, a, Inside(a))
			continue
		}
		if len(good) < maxAddresses {
			good = append(good, a)
		}
	}
	if len(good) > 0 {
		return good, nil
	}
	if refused != nil {
		return nil, refused
	}
	return nil, fmt.Errorf("the name %s has no address", h)
}

// dial is the transport's way to a host. It connects to the very address that it has checked: a name that answers otherwise a moment later
// changes nothing.
func (c *Client) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, fmt.Errorf("read the address to dial: %w", err)
	}
	host, err := ParseHost(name)
	if err != nil {
		return nil, err
	}
	addresses, err := c.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout, Control: c.control}
	var last error
	for _, a := range addresses {
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		last = err
	}
	return nil, fmt.Errorf("connect to %s: %w", host, last)
}

// control has the last word, on the socket itself: whatever stands above, nothing is connected to what is forbidden.
func (c *Client) control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return refuse(Forbidden, "A connection by %s is never made.", network)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return refuse(Forbidden, "The socket's address can't be read.")
	}
	return c.reachable(to.Addr())
}
