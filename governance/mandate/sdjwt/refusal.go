package sdjwt

import "fmt"

// Why a token is refused. Each has a name of its own, so that whoever refuses can say which, and a test can ask for it.
const (
	Malformed           = "malformed"            // it does not have a token's form
	WrongAlgorithm      = "wrong_algorithm"      // it is not signed by ES256 with SHA-256 digests
	WrongType           = "wrong_type"           // its typ is not that of its place
	WrongKey            = "wrong_key"            // the key is not an ES256 public key, or none is known
	BadSignature        = "bad_signature"        // the signature does not hold
	DuplicateDisclosure = "duplicate_disclosure" // a disclosure, or a digest, stands twice
	UnusedDisclosure    = "unused_disclosure"    // no digest refers to a disclosure
	ClaimHidden         = "claim_hidden"         // a disclosure would take the place of a claim
	BrokenChain         = "broken_chain"         // a link is not bound to the one before it
	WrongAudience       = "wrong_audience"       // it was made for somebody else
	WrongNonce          = "wrong_nonce"          // it was made for another occasion: it is replayed
	Expired             = "expired"              // its time is over
	NotYetValid         = "not_yet_valid"        // its time has not come
	KeyBindingMissing   = "key_binding_missing"  // the holder has not shown that it has the key
	KeyBindingUnwanted  = "key_binding_unwanted" // a proof of possession stands where none may
	ConfirmationMissing = "confirmation_missing" // it confirms no key by which the next link could be checked
	TooLarge            = "too_large"            // it is larger than any mandate is
)

// Refused says why a token is refused: Code is one of the constants above, Detail is for people.
type Refused struct {
	Code   string
	Detail string
}

func (r *Refused) Error() string { return "the token is refused (" + r.Code + "): " + r.Detail }

func refuse(code, format string, args ...any) error {
	return &Refused{Code: code, Detail: fmt.Sprintf(format, args...)}
}
