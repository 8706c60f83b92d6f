package billing_test

import (
	"flag"
	"os"
	"testing"
)

// One check is some hundred transactions, so there are fewer of them than rapid's hundred, unless -rapid.checks asks for more.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
