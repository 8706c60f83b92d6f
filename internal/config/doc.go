// Package config is the one documented configuration of Ambit.
//
// It owns: the Config struct (each field's variable, meaning, unit and default),
// reading it from the environment, refusing what is wrong with one clear line a
// field, printing it with its secrets hidden, and the Secret type. It is the
// only package that reads the process's environment.
//
// It does not own: what a setting does.
//
// It may import the standard library and caarlos0/env.
package config
