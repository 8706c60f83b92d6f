// Package commands tests the user's command line against a whole instance: the built binary on both sides, real engines between.
package commands
