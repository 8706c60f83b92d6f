package ui

import (
	"strconv"

	"ambit.dev/ambit/internal/money"
)

// share is part of whole in percent, as an SVG width between 0 and 100.
func share(part, whole money.Nanos) string {
	if whole <= 0 || part <= 0 {
		return "0"
	}
	return percent(min(float64(part)/float64(whole), 1))
}

// percent writes a fraction as a number of percent with two decimals.
func percent(f float64) string { return strconv.FormatFloat(f*100, 'f', 2, 64) }

func spentWords(spent, held money.Nanos, ceiling *money.Nanos) string {
	text := spent.Display() + " spent"
	if held > 0 {
		text += ", " + held.Display() + " held"
	}
	if ceiling != nil {
		text += ", ceiling " + ceiling.Display()
	}
	return text
}

func spentExact(spent, held money.Nanos, ceiling *money.Nanos) string {
	text := spent.Decimal() + " USD spent, " + held.Decimal() + " held"
	if ceiling != nil {
		text += ", ceiling " + ceiling.Decimal()
	}
	return text
}
