package ui

// Verdict projects what the rules make of all uses of one thing: allowed, denied, asks or depends.
func Verdict(verdict string) Status {
	switch verdict {
	case "allowed":
		return Status{Tone: ToneCompleted, Icon: "tick-disc", Word: "Allowed"}
	case "asks":
		return Status{Tone: ToneNeeds, Icon: "hand", Word: "Asks"}
	case "depends":
		return Status{Tone: ToneAsleep, Icon: "branch", Word: "Depends"}
	}
	return Status{Tone: ToneFailed, Icon: "barred", Word: "Denied"}
}

// Effect projects one decision of the rules: allow, deny or approve.
func Effect(effect string) Status {
	switch effect {
	case "allow":
		return Verdict("allowed")
	case "approve":
		return Verdict("asks")
	}
	return Verdict("denied")
}
