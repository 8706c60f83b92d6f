// Package agents is the console's pages about agents: the list, the editor, an agent's versions and aliases, and two versions side by
// side.
//
// It owns how a definition is edited and compared. What a definition may say is decided in the agents package of the same name below.
package agents
