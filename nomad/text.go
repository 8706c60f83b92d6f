package nomad

import (
	"fmt"
	"regexp"
	"strings"
)

// plain refuses text that Nomad would not take literally. Strings of a task's
// configuration and environment are interpolated on the client ("${…}" and
// "%{…}" are expressions there), so one such string could read another job's
// variables. Escaping exists but differs between the API and HCL; refusing is
// the rule that cannot be got wrong.
func plain(what, s string) error {
	if strings.Contains(s, "${") || strings.Contains(s, "%{") {
		return fmt.Errorf("nomad: %s holds an interpolation, which is not allowed in a job", what)
	}
	if strings.ContainsAny(s, "\x00\n\r") {
		return fmt.Errorf("nomad: %s holds a line break or a zero byte", what)
	}
	return nil
}

var (
	nameRE  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	tokenRE = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// variableName refuses names that are no environment variable or meta key.
func variableName(what, s string) error {
	if !nameRE.MatchString(s) {
		return fmt.Errorf("nomad: %s %q is not a variable name", what, s)
	}
	return nil
}

func plainMap(what string, m map[string]string) error {
	for k, v := range m {
		if err := variableName(what, k); err != nil {
			return err
		}
		if err := plain(what+" "+k, v); err != nil {
			return err
		}
	}
	return nil
}
