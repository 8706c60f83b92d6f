// Package proof proves on a whole instance with replicas that nothing is spent unheld: however many ask at once, and wherever a process is
// killed. "make proof-money" runs it in full; "make test" in a shorter form.
package proof
