package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	"github.com/caarlos0/env/v11"

	"ambit.dev/ambit/internal/money"
)

// Invalid is returned for a configuration that can't be used. Each problem is
// one line that names its variable; none shows a secret.
type Invalid struct{ Problems []string }

// Error joins the problems, one a line.
func (e *Invalid) Error() string { return strings.Join(e.Problems, "\n") }

// foreignPrefixes are variables of ours that are no settings of an instance.
var foreignPrefixes = []string{"AMBIT_TEST_", "AMBIT_BENCH_"}

// Load reads the configuration from the process's environment.
func Load() (Config, error) {
	vars := map[string]string{}
	for _, kv := range os.Environ() {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, "AMBIT_") {
			vars[name] = value
		}
	}
	return LoadFrom(vars)
}

// LoadFrom reads the configuration from variables given by name. An empty value
// counts as not set. On a problem the error is *Invalid.
func LoadFrom(vars map[string]string) (Config, error) {
	set := map[string]string{}
	for name, value := range vars {
		if value != "" {
			set[name] = value
		}
	}

	var c Config
	var problems []string
	err := env.ParseWithOptions(&c, env.Options{
		Environment: set,
		FuncMap: map[reflect.Type]env.ParserFunc{
			reflect.TypeFor[money.Nanos](): func(v string) (any, error) { return money.Parse(v) },
		},
	})
	if err != nil {
		problems = append(problems, parseProblems(err)...)
	}
	problems = append(problems, unknown(set)...)
	c.applyDefaults()
	if len(problems) == 0 { // a field that could not be read would be reported twice
		problems = c.check()
	}
	if len(problems) > 0 {
		return Config{}, &Invalid{Problems: problems}
	}
	c.WarmSandboxes = min(c.WarmSandboxes, c.MaxSandboxes)
	return c, nil
}

// parseProblems turns the parser's errors, which name Go fields and types, into
// lines that name variables. The values are not repeated: one may be a secret
// in the wrong place.
func parseProblems(err error) []string {
	all := []error{err}
	var many env.AggregateError
	if errors.As(err, &many) {
		all = many.Errors
	}
	var out []string
	for _, e := range all {
		var p env.ParseError
		if !errors.As(e, &p) {
			out = append(out, e.Error())
			continue
		}
		f, _ := reflect.TypeFor[Config]().FieldByName(p.Name)
		out = append(out, fmt.Sprintf("%s is not %s", f.Tag.Get("env"), expected(f)))
	}
	return out
}

func expected(f reflect.StructField) string {
	switch {
	case f.Type == reflect.TypeFor[money.Nanos]():
		return `an amount of dollars with two to nine decimals, such as "5.00"`
	case f.Name == "LogLevel":
		return "one of DEBUG, INFO, WARN, ERROR"
	case f.Type.Kind() == reflect.Int:
		return "a whole number"
	case f.Type.Kind() == reflect.Bool:
		return "true or false"
	default:
		return "valid"
	}
}

// unknown reports variables that look like settings and are none: a misspelt
// setting that is silently ignored is a wrong setting.
func unknown(set map[string]string) []string {
	known := map[string]bool{}
	for _, s := range fields() {
		known[s.Tag.Get("env")] = true
	}
	var out []string
	for name := range set {
		if known[name] || !strings.HasPrefix(name, "AMBIT_") || hasAnyPrefix(name, foreignPrefixes) {
			continue
		}
		line := name + " is no setting"
		if near := nearest(name, known); near != "" {
			line += "; is " + near + " meant?"
		} else {
			line += "; ambit config lists them"
		}
		out = append(out, line)
	}
	sort.Strings(out)
	return out
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// nearest is the known name at the least edit distance, if that is small.
func nearest(name string, known map[string]bool) string {
	best, at := "", 4
	for k := range known {
		if d := distance(name, k); d < at || (d == at && best != "" && k < best) {
			best, at = k, d
		}
	}
	return best
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func fields() []reflect.StructField {
	t := reflect.TypeFor[Config]()
	out := make([]reflect.StructField, t.NumField())
	for i := range out {
		out[i] = t.Field(i)
	}
	return out
}
