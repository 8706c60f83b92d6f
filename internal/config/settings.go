package config

import (
	"fmt"
	"reflect"
	"slices"
)

// Setting is one field as people see it.
type Setting struct {
	// Name is the environment variable.
	Name string
	// Value as it is in force; a secret shows as "[hidden]".
	Value string
	// Default is the fixed default, empty where there is none or it depends.
	Default string
	// Doc says what it means, in which unit.
	Doc string
	// Internal settings are set by Ambit for its own children.
	Internal bool
}

// Settings lists all fields in their order in Config.
func (c Config) Settings() []Setting {
	v := reflect.ValueOf(c)
	var out []Setting
	for i, f := range fields() {
		out = append(out, Setting{
			Name:     f.Tag.Get("env"),
			Value:    fmt.Sprint(v.Field(i).Interface()),
			Default:  f.Tag.Get("envDefault"),
			Doc:      f.Tag.Get("doc"),
			Internal: f.Tag.Get("scope") == "internal",
		})
	}
	return out
}

// Environ is the configuration as environment variables, secrets in clear, for
// a child process that loads the same configuration. Empty fields are left out.
func (c Config) Environ() []string {
	v := reflect.ValueOf(c)
	var out []string
	for i, f := range fields() {
		var text string
		switch x := v.Field(i).Interface().(type) {
		case Secret:
			text = x.Reveal()
		case Address:
			text = x.Reveal()
		default:
			text = fmt.Sprint(x)
		}
		if text != "" {
			out = append(out, f.Tag.Get("env")+"="+text)
		}
	}
	slices.Sort(out)
	return out
}
