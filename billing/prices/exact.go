package prices

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"

	"ambit.dev/ambit/internal/money"
)

var decimalShape = regexp.MustCompile(`^[+-]?[0-9][0-9_]{0,40}(\.[0-9_]{1,60})?([eE][+-]?[0-9]{1,3})?$`)

// toNanos turns a decimal number of dollars for each of per units into nano-dollars a unit, exactly. What is no whole number of
// nano-dollars is rounded up, and reported as such.
func toNanos(decimal json.Number, per int64) (nanos int64, rounded bool, err error) {
	// The shape bounds the exponent: big.Rat would build a number of any size.
	if !decimalShape.MatchString(string(decimal)) {
		return 0, false, fmt.Errorf("%q is no decimal number", string(decimal))
	}
	r, ok := new(big.Rat).SetString(string(decimal))
	if !ok {
		return 0, false, fmt.Errorf("%q is no decimal number", string(decimal))
	}
	r.Mul(r, new(big.Rat).SetInt64(int64(money.Dollar)))
	r.Quo(r, new(big.Rat).SetInt64(per))
	if r.Sign() < 0 {
		return 0, false, fmt.Errorf("%s is below zero", decimal)
	}
	n, rest := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	if rest.Sign() != 0 {
		n.Add(n, big.NewInt(1))
		rounded = true
	}
	if !n.IsInt64() || n.Int64() > mostExpensive {
		return 0, false, fmt.Errorf("%s is more than a dollar a unit", decimal)
	}
	return n.Int64(), rounded, nil
}
