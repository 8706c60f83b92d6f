// Package approvals is the console's inbox of what waits for people, with its history, the rules that ask, and absences.
//
// It owns how an action is shown to a person who decides on it, and the forms. What is asked, who may decide and what a decision is good for
// are governance/approval's, through the scheduler, which lets the session go on. A page that was opened by a mailed link decides nothing: a
// form that is posted does. It imports page, ui, confirm and the domains.
package approvals
