package agents_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/journal"
)

func TestAllowedHostsHaveOneSpelling(t *testing.T) {
	check := func(hosts ...string) (journal.Definition, error) {
		return catalogue.Check("", journal.Definition{Model: "test/model", Network: journal.Network{AllowedHosts: hosts}})
	}
	d, err := check("API.Example.com.", " *.bücher.example ", "[2606:4700:0::1]:8443")
	require.NoError(t, err)
	require.Equal(t, []string{"api.example.com", "*.xn--bcher-kva.example", "[2606:4700::1]:8443"}, d.Network.AllowedHosts)
	d, err = check()
	require.NoError(t, err)
	require.Nil(t, d.Network.AllowedHosts, "none reach nothing")

	many := make([]string, agents.MaxAllowedHosts+1)
	for i := range many {
		many[i] = fmt.Sprintf("h%d.example.com", i)
	}
	for pointer, hosts := range map[string][]string{
		"/network/allowed_hosts":   many,
		"/network/allowed_hosts/0": {"*"},
		"/network/allowed_hosts/1": {"example.com", "EXAMPLE.com"},
		"/network/allowed_hosts/2": {"a.example", "b.example", "https://c.example/"},
	} {
		_, err := check(hosts...)
		require.Equal(t, pointer, fault.As(err).Fields[0].Pointer)
	}
	for _, bad := range []string{"", "*.com", "0x7f.1", "10.0.0.1:22", "metadata", "a b.example", "user@a.example"} {
		_, err := check(bad)
		require.Error(t, err, bad)
	}
}

func TestIdentityIsShownToAllowedHostsOnly(t *testing.T) {
	check := func(allowed []string, known ...string) (journal.Definition, error) {
		return catalogue.Check("", journal.Definition{Model: "test/model", Network: journal.Network{AllowedHosts: allowed, IdentityHosts: known}})
	}
	d, err := check([]string{"api.example.com", "*.example.org"}, "API.example.com", "*.example.org")
	require.NoError(t, err)
	require.Equal(t, []string{"api.example.com", "*.example.org"}, d.Network.IdentityHosts)
	for _, c := range []struct {
		pointer string
		allowed []string
		known   []string
	}{
		{"/network/identity_hosts/0", nil, []string{"api.example.com"}},
		{"/network/identity_hosts/0", []string{"*.example.org"}, []string{"api.example.org"}}, // named, not derived
		{"/network/identity_hosts/1", []string{"a.example"}, []string{"a.example", "A.example"}},
		{"/network/identity_hosts/0", []string{"a.example"}, []string{"https://a.example"}},
		{"/network/identity_hosts/0", []string{"a.example:8443"}, []string{"a.example"}},
	} {
		_, err := check(c.allowed, c.known...)
		require.Equal(t, c.pointer, fault.As(err).Fields[0].Pointer, "%v", c)
	}
}

func TestAChangeOfTheNetworkMakesAVersion(t *testing.T) {
	s := newShelf(t)
	a, err := s.create("reaching")
	require.NoError(t, err)
	d := a.Definition
	d.Network.AllowedHosts = []string{"api.example.com"}
	a, err = s.update(a.ID, agents.UpdateInput{Definition: &d})
	require.NoError(t, err)
	require.Equal(t, 2, a.Version)
	require.Equal(t, []string{"api.example.com"}, a.Definition.Network.AllowedHosts)
	a, err = s.update(a.ID, agents.UpdateInput{Definition: &a.Definition})
	require.NoError(t, err)
	require.Equal(t, 2, a.Version)
}
