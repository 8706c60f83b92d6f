package egress

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheSocketItselfIsChecked: the last word is with the address that is really connected to, whatever was checked before.
func TestTheSocketItselfIsChecked(t *testing.T) {
	c := New(Config{})
	for _, address := range []string{"127.0.0.1:80", "[::1]:443", "169.254.169.254:80", "10.0.0.1:443", "[::ffff:10.0.0.1]:80", "[fe80::1%eth0]:80", "nonsense"} {
		require.Error(t, c.control("tcp4", address, nil), address)
	}
	require.NoError(t, c.control("tcp4", "93.184.215.14:443", nil))
	require.Error(t, c.control("udp4", "93.184.215.14:443", nil))
	require.NoError(t, New(Config{AllowLoopback: true}).control("tcp4", "127.0.0.1:80", nil))
	require.Error(t, New(Config{AllowLoopback: true}).control("tcp4", "10.0.0.1:80", nil))
}
