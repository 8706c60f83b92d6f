// Package showconfig is the command "ambit config": it prints each setting with
// its value, its meaning and its default, secrets hidden.
//
// It may import internal/config.
package showconfig
