package money

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
)

// Nanos is an amount in nano-dollars (10^-9 USD). It may be negative in a difference; what a request may ask for is checked where it is read.
type Nanos int64

const (
	// Cent is one hundredth of a dollar.
	Cent Nanos = 10_000_000
	// Dollar is one US dollar.
	Dollar Nanos = 1_000_000_000
	// Currency is the only currency there is.
	Currency = "USD"
)

// ErrInvalid is wrapped by every error of Parse and of UnmarshalJSON.
var ErrInvalid = errors.New("invalid amount of money")

// ErrOverflow says that a sum or a product does not fit.
var ErrOverflow = errors.New("amount of money out of range")

// decimalShape demands the point, so that "2500", which is cents elsewhere, is refused and not read as $2,500.
var decimalShape = regexp.MustCompile(`^-?(0|[1-9]\d{0,12})\.\d{2,9}$`)

// Parse reads a decimal string of dollars with two to nine decimals, such as "25.00" or "0.001281".
func Parse(decimal string) (Nanos, error) {
	if !decimalShape.MatchString(decimal) {
		return 0, fmt.Errorf(`%w: write dollars with a point and two to nine decimals, such as "25.00"`, ErrInvalid)
	}
	digits, negative := strings.CutPrefix(decimal, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	n, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", 9-len(fraction)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q is larger than this system can hold", ErrInvalid, decimal)
	}
	if negative {
		n = -n
	}
	return Nanos(n), nil
}

// Decimal writes n as Parse reads it: exact, with at least two decimals and no trailing zeros beyond them.
func (n Nanos) Decimal() string {
	sign := ""
	u := uint64(n) //nolint:gosec // replaced when negative
	if n < 0 {
		sign, u = "-", uint64(-n) //nolint:gosec // two's complement makes this right for the least value too
	}
	fraction := strings.TrimRight(fmt.Sprintf("%09d", u%uint64(Dollar)), "0")
	for len(fraction) < 2 {
		fraction += "0"
	}
	return sign + strconv.FormatUint(u/uint64(Dollar), 10) + "." + fraction
}

// String is Decimal, for logs.
func (n Nanos) String() string { return n.Decimal() }

// Display writes n for people: two decimals from one dollar up, four significant digits below, and never "$0.00" for an amount that
// is not zero. It rounds half away from zero; the exact amount is Decimal.
func (n Nanos) Display() string {
	if n < 0 {
		if n == math.MinInt64 {
			return "-$9223372036.85"
		}
		return "-" + (-n).Display()
	}
	if n >= Dollar-Cent/2 || n == 0 {
		return "$" + group(uint64(n+Cent/2)/uint64(Cent))
	}
	// Below a dollar: keep four significant digits of the nano-dollars, which have at most nine.
	unit := uint64(1)
	for u := uint64(n); u >= 10_000; u /= 10 {
		unit *= 10
	}
	rounded := (uint64(n) + unit/2) / unit * unit
	return "$" + Nanos(rounded).Decimal() //nolint:gosec // below a dollar
}

func group(cents uint64) string {
	whole := strconv.FormatUint(cents/100, 10)
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return fmt.Sprintf("%s.%02d", whole, cents%100)
}

// Add sums two amounts and refuses what does not fit.
func (n Nanos) Add(m Nanos) (Nanos, error) {
	sum := n + m
	if (m > 0 && sum < n) || (m < 0 && sum > n) {
		return 0, ErrOverflow
	}
	return sum, nil
}

// Times multiplies a price by a count and refuses what does not fit. Neither may be negative.
func (n Nanos) Times(count int64) (Nanos, error) {
	if n < 0 || count < 0 {
		return 0, ErrOverflow
	}
	hi, lo := bits.Mul64(uint64(n), uint64(count))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, ErrOverflow
	}
	return Nanos(lo), nil
}

type wire struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

// MarshalJSON writes {"amount":"0.50","currency":"USD"}.
func (n Nanos) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{Amount: n.Decimal(), Currency: Currency})
}

// UnmarshalJSON reads what MarshalJSON writes. A JSON number, another currency or a missing field is refused.
func (n *Nanos) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return fmt.Errorf(`%w: write {"amount":"25.00","currency":"USD"}`, ErrInvalid)
	}
	if w.Currency != Currency {
		return fmt.Errorf("%w: the currency is %q", ErrInvalid, Currency)
	}
	v, err := Parse(w.Amount)
	if err != nil {
		return err
	}
	*n = v
	return nil
}
