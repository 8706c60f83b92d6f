package api

import (
	"net/http"

	"ambit.dev/ambit/internal/apidoc"
)

// Slugs of the error types that this package itself gives. Domains give theirs as a fault's code.
const (
	slugInvalid     = "invalid_request"
	slugMoney       = "invalid_money"
	slugPage        = "invalid_page"
	slugNotFound    = "not_found"
	slugDenied      = "permission_denied"
	slugKeyReused   = "idempotency_key_reused"
	slugKeyBusy     = "idempotency_in_progress"
	slugTooLarge    = "too_large"
	slugMedia       = "unsupported_media_type"
	slugRate        = "rate_limited"
	slugConcurrency = "concurrency_limited"
	slugInternal    = "internal"
	slugUnavailable = "unavailable"
	slugLastOwner   = "last_owner"
)

// ErrorTypes lists every type of problem that this API can answer with, in the order of their statuses. Each has a page at
// /errors/{slug}.
func ErrorTypes() []apidoc.ErrorType { return errorTypes }

func errorType(slug string) (apidoc.ErrorType, bool) {
	for _, t := range errorTypes {
		if t.Slug == slug {
			return t, true
		}
	}
	return apidoc.ErrorType{}, false
}

var errorTypes = []apidoc.ErrorType{
	{
		Slug: slugInvalid, Status: http.StatusBadRequest, Title: "The request is not valid",
		Meaning: "A field, a parameter or a header is missing, unknown, of the wrong type or out of its range, or the body is not JSON.",
		Action:  "Read errors: each entry has a pointer to the place (a JSON pointer into the body, or query/… or header/…), a code and a sentence. Nothing was done.",
	},
	{
		Slug: slugMoney, Status: http.StatusBadRequest, Title: "An amount of money is not valid",
		Meaning: `An amount is not written as {"amount":"25.00","currency":"USD"}: dollars as a string with a point and two to nine decimals. The point is required so that a number of cents is never read as dollars.`,
		Action:  "Write the amount in that form. Nothing was done.",
	},
	{
		Slug: slugPage, Status: http.StatusBadRequest, Title: "The page cursor does not fit",
		Meaning: "A page cursor belongs to the list, the filters and the order with which it was made. This one is damaged, or was sent with others.",
		Action:  "Repeat the first request without page, or send the cursor with the same filters.",
	},
	{
		Slug: "idempotency_key_required", Status: http.StatusBadRequest, Title: "An Idempotency-Key is required",
		Meaning: "This request moves money, so it must be safe to repeat.",
		Action:  "Send an Idempotency-Key header with a value of your own, such as a UUID, and the same one when you repeat the request.",
	},
	{
		Slug: "not_available", Status: http.StatusBadRequest, Title: "This is not available",
		Meaning: "The request names something that this instance does not offer.",
		Action:  "Leave the field out.",
	},
	{
		Slug: "unauthenticated", Status: http.StatusUnauthorized, Title: "No valid key",
		Meaning: "The Authorization header is missing, is not Bearer with an API key, or the key is mistyped or unknown.",
		Action:  "Send Authorization: Bearer amb_… with a key from the console's page Keys.",
	},
	{
		Slug: "key_expired", Status: http.StatusUnauthorized, Title: "The key has expired",
		Meaning: "The key was valid until its expiry.",
		Action:  "Make or rotate a key and use the new one.",
	},
	{
		Slug: "key_revoked", Status: http.StatusUnauthorized, Title: "The key was revoked",
		Meaning: "Somebody of your organisation withdrew this key, or who made it is no longer a member.",
		Action:  "Make a new key.",
	},
	{
		Slug: "insufficient_funds", Status: http.StatusPaymentRequired, Title: "Not enough money",
		Meaning: "The most that this work may cost could not be held. Nothing was started and nothing was spent.",
		Action:  "Add credit, raise the limit that is named in limiting, or ask for less: a lower max_cost or max_tokens.",
		Members: []apidoc.Member{
			{Name: "required", Meaning: "what had to be held"},
			{Name: "available", Meaning: "what could be held now"},
			{Name: "shortfall", Meaning: "the difference"},
			{Name: "limiting", Meaning: "each balance or budget that was too small: scope, id, available"},
		},
	},
	{
		Slug: "mandate_exceeded", Status: http.StatusPaymentRequired, Title: "The mandate does not reach that far",
		Meaning: "The mandate, or one that it descends from, allows less than this would cost.",
		Action:  "Ask whoever granted the mandate for a wider one.",
	},
	{
		Slug: slugDenied, Status: http.StatusForbidden, Title: "Not permitted",
		Meaning: "The key or the agent was not given the permission that this takes.",
		Action:  "Use a key with the permission that is named in rule, or have it added.",
		Members: []apidoc.Member{{Name: "rule", Meaning: "the permission or rule that decided"}},
	},
	{
		Slug: "mandate_required", Status: http.StatusForbidden, Title: "A mandate is required",
		Meaning: "This spends on somebody's behalf, which takes a mandate.",
		Action:  "Name a mandate_id.",
	},
	{
		Slug: "step_up_required", Status: http.StatusForbidden, Title: "A person must confirm this",
		Meaning: "What was asked lets more happen without a person, or was marked so: it takes a confirmation with a passkey or a password, which a key can't give.",
		Action:  "Do it in the console.",
	},
	{
		Slug: "egress_denied", Status: http.StatusForbidden, Title: "The address is not allowed",
		Meaning: "The environment's network rules do not allow this host.",
		Action:  "Add the host to the environment's allowed_hosts.",
	},
	{
		Slug: slugNotFound, Status: http.StatusNotFound, Title: "Not found",
		Meaning: "There is nothing at this address, or the key may not see it: the two are answered alike, byte for byte.",
		Action:  "Check the path and the id, and whether the key belongs to the right project.",
	},
	{
		Slug: "gone", Status: http.StatusGone, Title: "Gone",
		Meaning: "It was here and was deleted for good.",
		Action:  "Stop asking for it.",
	},
	{
		Slug: "session_running", Status: http.StatusConflict, Title: "The session is running",
		Meaning: "The session is at work, and the request asked to be refused in that case.",
		Action:  "Wait until it is idle, or send if_running queue or interrupt.",
	},
	{
		Slug: "session_terminated", Status: http.StatusConflict, Title: "The session has ended",
		Meaning: "A terminated session takes no input and does no work.",
		Action:  "Start a new session.",
	},
	{
		Slug: "session_paused", Status: http.StatusConflict, Title: "The session is paused",
		Meaning: "Somebody or a rule paused the session.",
		Action:  "Resume it first.",
	},
	{
		Slug: "already_decided", Status: http.StatusConflict, Title: "Already decided",
		Meaning: "Somebody decided this before you did.",
		Action:  "Read it again to see the decision.",
	},
	{
		Slug: "digest_mismatch", Status: http.StatusConflict, Title: "The action has changed",
		Meaning: "The digest that was sent is not the one of the action that is waiting.",
		Action:  "Read the approval again and decide on what it shows now.",
	},
	{
		Slug: "approval_expired", Status: http.StatusConflict, Title: "The time is over",
		Meaning: "Nobody decided in the time that there was. That is no person's refusal; without an answer it was not done.",
		Action:  "Let the agent ask again, or give people more time in the rule.",
	},
	{
		Slug: "fenced", Status: http.StatusConflict, Title: "Superseded",
		Meaning: "Another worker has taken the session over, or it was killed: this one may neither commit nor spend.",
		Action:  "Read the session again.",
	},
	{
		Slug: "quote_expired", Status: http.StatusConflict, Title: "The quote has expired",
		Meaning: "The quote's prices were bound until its expiry.",
		Action:  "Ask for a new quote. Nothing was started.",
		Members: []apidoc.Member{{Name: "expires_at", Meaning: "when it expired"}},
	},
	{
		Slug: "quote_used", Status: http.StatusConflict, Title: "The quote was used before",
		Meaning: "A quote is good for one invoke, and one has used it. A request that is repeated with the same Idempotency-Key does not meet this.",
		Action:  "Ask for a new quote. Nothing was started.",
		Members: []apidoc.Member{{Name: "session_id", Meaning: "the session that used it"}},
	},
	{
		Slug: "quote_mismatch", Status: http.StatusConflict, Title: "The quote is for something else",
		Meaning: "What is invoked is not what was quoted: another agent, a newer version of it, another input, tools or limits, or the session has gone on since. Only limits.max_cost, title, metadata, mode and wait_seconds may differ.",
		Action:  "Ask for a quote with the body of this invoke. Nothing was started.",
	},
	{
		Slug: slugKeyBusy, Status: http.StatusConflict, Title: "The first request is still running", Retryable: true,
		Meaning: "A request with the same Idempotency-Key has not ended yet.",
		Action:  "Wait for Retry-After and repeat the request: you will get the first one's answer.",
	},
	{
		Slug: "state_conflict", Status: http.StatusConflict, Title: "Not in this state",
		Meaning: "What was asked does not fit the present state of the object.",
		Action:  "Read it again and decide anew.",
	},
	{
		Slug: slugLastOwner, Status: http.StatusConflict, Title: "The last owner stays",
		Meaning: "Every organisation has an owner, who alone may do everything. This would have left it without one.",
		Action:  "Make another member an owner first.",
	},
	{
		Slug: "archived", Status: http.StatusConflict, Title: "Archived",
		Meaning: "An archived object is read-only for good.",
		Action:  "Make a new one.",
	},
	{
		Slug: "precondition_failed", Status: http.StatusPreconditionFailed, Title: "It has changed meanwhile",
		Meaning: "If-Match names a version that is no longer the newest.",
		Action:  "Read it again, look at what changed, and repeat with the new ETag.",
	},
	{
		Slug: slugTooLarge, Status: http.StatusRequestEntityTooLarge, Title: "Too large",
		Meaning: "The body, or a part of it, is larger than this route takes.",
		Action:  "Send less. Large inputs belong into a file of the session's working directory.",
		Members: []apidoc.Member{{Name: "limit_bytes", Meaning: "the most that is taken"}},
	},
	{
		Slug: slugMedia, Status: http.StatusUnsupportedMediaType, Title: "Not a media type that is understood",
		Meaning: "Bodies are JSON.",
		Action:  "Send Content-Type: application/json.",
	},
	{
		Slug: slugKeyReused, Status: http.StatusUnprocessableEntity, Title: "The Idempotency-Key was used for another request",
		Meaning: "The same key came before with another body.",
		Action:  "Use a new key for a new request.",
	},
	{
		Slug: "price_unknown", Status: http.StatusUnprocessableEntity, Title: "No price is known",
		Meaning: "The price table has no entry for this, so what it may cost can't be held. What has no price is not run.",
		Action:  "Choose a model from GET /v1/models, or have the operator add a price.",
	},
	{
		Slug: "unknown_time_zone", Status: http.StatusUnprocessableEntity, Title: "There is no such time zone",
		Meaning: "The name is not one of the IANA time zone database, or this instance does not know it.",
		Action:  "Name a zone such as Europe/Berlin or America/New_York, or UTC.",
	},
	{
		Slug: "precondition_required", Status: http.StatusPreconditionRequired, Title: "If-Match is required",
		Meaning: "Moving this without having seen its present state could undo somebody else's move.",
		Action:  "Read it, and send its ETag in If-Match.",
	},
	{
		Slug: slugRate, Status: http.StatusTooManyRequests, Title: "Too many requests", Retryable: true,
		Meaning: "A quota of the key (default), of all keys of its organisation (organization), or of the tokens that their work may use (tokens, organization-tokens) is used up for the moment. Quotas count over all processes.",
		Action:  "Wait for Retry-After. RateLimit tells how much is left of each on each answer. Work that has begun goes on.",
		Members: []apidoc.Member{{Name: "violated_policies", Meaning: "the names of the quotas that were exceeded"}},
	},
	{
		Slug: slugConcurrency, Status: http.StatusTooManyRequests, Title: "Too much at once", Retryable: true,
		Meaning: "Too many streams or waits of this key are open at the same time (open_answers), or too many sessions of it (sessions) or of its organisation (organization-sessions) are at work.",
		Action:  "Close some streams, or wait until some sessions have ended their work. Nothing was started.",
		Members: []apidoc.Member{{Name: "violated_policies", Meaning: "the names of the limits that were reached"}},
	},
	{
		Slug: slugInternal, Status: http.StatusInternalServerError, Title: "Something went wrong on our side",
		Meaning: "A fault of this instance. What it was stands in its log under the request_id.",
		Action:  "Repeat the request with the same Idempotency-Key. If it goes on, give the request_id to whoever runs this instance.",
	},
	{
		Slug: "provider_failed", Status: http.StatusBadGateway, Title: "The provider failed", Retryable: true,
		Meaning: "A model provider or an outside service answered with an error.",
		Action:  "Try again later, or choose another model.",
	},
	{
		Slug: slugUnavailable, Status: http.StatusServiceUnavailable, Title: "Not available just now", Retryable: true,
		Meaning: "A part that this takes is starting, stopping or out of reach.",
		Action:  "Wait for Retry-After and repeat the request.",
	},
	{
		Slug: "no_capacity", Status: http.StatusServiceUnavailable, Title: "No capacity", Retryable: true,
		Meaning: "There is no sandbox to be had at the moment.",
		Action:  "Wait for Retry-After and repeat the request.",
	},
	{
		Slug: "provider_timeout", Status: http.StatusGatewayTimeout, Title: "It took too long", Retryable: true,
		Meaning: "A provider or an outside service did not answer in time.",
		Action:  "Repeat the request with the same Idempotency-Key.",
	},
}
