package page

import (
	"strings"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
)

// Dollars reads an amount as people type it into a field that says dollars: 25, 25.5 and 25.00 are the same.
func Dollars(text string) (money.Nanos, error) {
	whole, decimals, pointed := strings.Cut(text, ".")
	switch {
	case text != "" && !pointed:
		text += ".00"
	case len(decimals) == 1:
		text = whole + "." + decimals + "0"
	}
	return money.Parse(text)
}

// FormProblems turns the fault with which a form was refused into what is shown above it and under its fields, and the status to answer
// with. fields maps pointers of the fault to the names of inputs; a pointer without one is taken as it is, without its slash. A fault
// that is not about the form is returned as the error that it is.
func FormProblems(err error, fields map[string]string) (ui.Problems, int, error) {
	f := fault.As(err)
	switch f.Kind {
	case fault.Invalid, fault.Unprocessable, fault.Conflict, fault.PreconditionFailed, fault.TooMany, fault.Unauthenticated, fault.PaymentRequired, fault.TooLarge, fault.Gone, fault.Forbidden:
	default:
		return nil, 0, err
	}
	status := 422
	if f.Kind == fault.TooMany || f.Kind == fault.PaymentRequired {
		status = Status(f)
	}
	var problems ui.Problems
	for _, one := range f.Fields {
		name, known := fields[one.Pointer]
		if !known {
			name = strings.ReplaceAll(strings.TrimPrefix(one.Pointer, "/"), "/", "-")
		}
		problems = append(problems, ui.Problem{Field: name, Message: one.Message})
	}
	if len(problems) == 0 {
		problems = ui.Problems{{Message: f.Message}}
	}
	return problems, status, nil
}
