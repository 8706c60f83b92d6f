package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

const (
	// A challenge of a sign-in is a time in seconds, random bytes, and a MAC over both: whoever opens the page causes no write.
	signInTimeLen, signInRandomLen = 8, 8
)

// SignInOptions are for navigator.credentials.get on the sign-in page: any passkey for this site may answer, and no account is named.
func (s *StepUp) SignInOptions() (json.RawMessage, error) {
	challenge := make([]byte, signInTimeLen+signInRandomLen, sha256.Size)
	binary.BigEndian.PutUint64(challenge, uint64(s.deps.Clock.Now().Unix())) //nolint:gosec // after 1970
	_, _ = rand.Read(challenge[signInTimeLen:])                              // never an error: it ends the program when the system has no randomness
	challenge = append(challenge, s.signInMAC(challenge)...)
	options, err := json.Marshal(protocol.PublicKeyCredentialRequestOptions{
		Challenge: challenge, Timeout: int(ChallengeLasts.Milliseconds()), RelyingPartyID: s.rp.ID, UserVerification: protocol.VerificationRequired,
	})
	if err != nil {
		return nil, fmt.Errorf("write the options of a sign-in: %w", err)
	}
	return options, nil
}

func (s *StepUp) signInMAC(head []byte) []byte {
	mac := hmac.New(sha256.New, s.signInKey)
	mac.Write(head)
	return mac.Sum(nil)[:sha256.Size-signInTimeLen-signInRandomLen]
}

// signInChallenge checks that a challenge is one of ours, and not too old.
func (s *StepUp) signInChallenge(challenge [32]byte, now time.Time) (expires time.Time, err error) {
	head := challenge[:signInTimeLen+signInRandomLen]
	if !hmac.Equal(s.signInMAC(head), challenge[len(head):]) {
		return expires, errChallengeUnknown
	}
	expires = time.Unix(int64(binary.BigEndian.Uint64(head)), 0).Add(ChallengeLasts) //nolint:gosec // what we wrote
	if !expires.After(now) {
		return expires, errChallengeExpired
	}
	return expires, nil
}

// WhoSignsIn checks a passkey's answer to SignInOptions and says whose passkey it is. The answer counts once. Whether that person may sign
// in is for the caller to know. Its faults are those of Finish.
func (s *StepUp) WhoSignsIn(ctx context.Context, answer json.RawMessage) (id.User, error) {
	a, err := parseAssertion(answer)
	if err != nil {
		return "", err
	}
	challenge, err := challengeOf(a.Response.CollectedClientData)
	if err != nil {
		return "", err
	}
	now := s.deps.Clock.Now()
	expires, err := s.signInChallenge(challenge, now)
	if err != nil {
		return "", err
	}
	found, err := identitydb.New(s.db.App()).FindPasskey(ctx, a.RawID)
	if err != nil {
		return "", postgres.Translate(fmt.Errorf("look up a passkey: %w", err))
	}
	if found == "" {
		return "", errUnknownPasskey
	}
	user := id.User(found)
	if handle := a.Response.UserHandle; len(handle) > 0 && !bytes.Equal(handle, userHandle(user)) {
		return "", errUnknownPasskey
	}
	err = s.as(ctx, user, "", func(q *identitydb.Queries) error {
		n, err := q.UseSignInChallenge(ctx, identitydb.UseSignInChallengeParams{Challenge: challenge[:], ExpiresAt: expires})
		if err != nil {
			return fmt.Errorf("use a challenge: %w", err)
		}
		if n == 0 {
			return errChallengeUsed
		}
		return s.usePasskey(ctx, q, Ask{User: user, Challenge: challenge}, a, now, &Proof{})
	})
	if err != nil {
		return "", err
	}
	return user, nil
}

// userHandle is what an authenticator keeps beside the key. It is no name and no address: the device may show it to whoever holds it.
func userHandle(user id.User) []byte {
	sum := sha256.Sum256([]byte("ambit passkey user\x00" + string(user)))
	return sum[:]
}
