package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

// baseURL is where the instance is reached, and what its did:web names are made of.
type baseURL struct {
	url string
	did string
}

// parseBase makes the did:web name of a URL: the host, its port's colon written as %3A, and the path's parts after colons.
func parseBase(publicURL string) (baseURL, error) {
	u, err := url.Parse(strings.TrimRight(publicURL, "/"))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return baseURL{}, fmt.Errorf("identity: the public URL %q must begin with http:// or https://", publicURL)
	}
	did := "did:web:" + strings.ReplaceAll(u.Host, ":", "%3A")
	if path := strings.Trim(u.EscapedPath(), "/"); path != "" {
		did += ":" + strings.ReplaceAll(path, "/", ":")
	}
	return baseURL{url: u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"), did: did}, nil
}

// folder is where a subject's documents lie; empty for what is no subject.
func folder(of Subject) string {
	switch id.PrefixOf(string(of)) {
	case id.Agent("").Prefix():
		return "agents"
	case id.Session("").Prefix():
		return "sessions"
	case id.Org("").Prefix():
		return "organizations"
	}
	return ""
}

// DID is the subject's name in the method did:web. Its document is at DocumentURL.
func (k *AgentKeys) DID(of Subject) string { return k.base.did + ":" + folder(of) + ":" + string(of) }

// InstanceDID is the did:web name of the instance, whose document is at /.well-known/did.json.
func (k *AgentKeys) InstanceDID() string { return k.base.did }

// DocumentURL is where the subject's DID document is.
func (k *AgentKeys) DocumentURL(of Subject) string {
	return k.base.url + "/" + folder(of) + "/" + string(of) + "/did.json"
}

// JWKSURL is where the subject's public keys are (RFC 7517).
func (k *AgentKeys) JWKSURL(of Subject) string {
	return k.base.url + "/" + folder(of) + "/" + string(of) + "/jwks.json"
}

// Published returns the subject's keys that are not retired. It needs no organisation: ids are what others know an agent by. Its fault is
// not_found, for a subject that has no key, or is none.
func (k *AgentKeys) Published(ctx context.Context, of Subject) (jose.JSONWebKeySet, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	rows, err := identitydb.New(k.db.App()).PublishedKeys(ctx, identitydb.PublishedKeysParams{Subject: string(of), Now: k.deps.Clock.Now()})
	if err != nil {
		return set, postgres.Translate(fmt.Errorf("read the published keys of %s: %w", of, err))
	}
	for _, document := range rows {
		public, err := publicOf(document)
		if err != nil {
			return set, err
		}
		set.Keys = append(set.Keys, public.JWK)
	}
	if len(set.Keys) == 0 {
		return set, fault.NotFound()
	}
	return set, nil
}

// didDocument is a document of DID Core 1.0 with keys as JWKs.
type didDocument struct {
	Context            []string             `json:"@context"`
	ID                 string               `json:"id"`
	Controller         string               `json:"controller,omitempty"`
	VerificationMethod []verificationMethod `json:"verificationMethod"`
	Authentication     []string             `json:"authentication,omitempty"`
	AssertionMethod    []string             `json:"assertionMethod"`
}

type verificationMethod struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Controller   string          `json:"controller"`
	PublicKeyJWK jose.JSONWebKey `json:"publicKeyJwk"`
}

func didDocumentOf(did, controller string, keys jose.JSONWebKeySet) didDocument {
	doc := didDocument{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"},
		ID:      did, Controller: controller, VerificationMethod: []verificationMethod{}, AssertionMethod: []string{},
	}
	for _, key := range keys.Keys {
		method := did + "#" + key.KeyID
		doc.VerificationMethod = append(doc.VerificationMethod, verificationMethod{ID: method, Type: "JsonWebKey2020", Controller: did, PublicKeyJWK: key})
		doc.AssertionMethod = append(doc.AssertionMethod, method)
	}
	if controller != "" {
		doc.Authentication = doc.AssertionMethod
	}
	return doc
}

// Serves reports whether Handler answers a path, so that a surface with other pages can ask it first.
func Serves(path string) bool {
	if path == "/.well-known/did.json" {
		return true
	}
	of, document := subjectOf(path)
	return of != "" && document != ""
}

// subjectOf reads /agents/{id}/did.json and its kin.
func subjectOf(path string) (of Subject, document string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) != 3 || (parts[2] != "did.json" && parts[2] != "jwks.json") || folder(Subject(parts[1])) != parts[0] {
		return "", ""
	}
	return Subject(parts[1]), parts[2]
}

// Handler serves the instance's DID document and the agents' DID documents and key sets, to anybody. What it answers depends on the path
// alone, holds keys and ids only, and may be cached for CacheFor by everybody. A subject without a key is the same 404 as none.
func (k *AgentKeys) Handler(instance *Keyring) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		document, media, err := k.document(r.Context(), r.URL.Path, instance)
		var refused *fault.Error
		switch {
		case errors.As(err, &refused) && refused.Kind == fault.NotFoundKind:
			w.Header().Set("Cache-Control", "public, max-age=60")
			http.Error(w, "no such document", http.StatusNotFound)
			return
		case err != nil:
			k.deps.Logger.ErrorContext(r.Context(), "a key document can't be read", "error", err)
			http.Error(w, "the keys can't be read", http.StatusServiceUnavailable)
			return
		}
		h := w.Header()
		h.Set("Content-Type", media)
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(CacheFor.Seconds())))
		h.Set("Access-Control-Allow-Origin", "*") // public keys: a verifier may be a page
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(document) //nolint:gosec // JSON by its content type, which is not to be guessed at
	})
}

func (k *AgentKeys) document(ctx context.Context, path string, instance *Keyring) (document []byte, media string, err error) {
	var answer any
	switch of, name := subjectOf(path); {
	case path == "/.well-known/did.json":
		answer, media = didDocumentOf(k.base.did, "", instance.Keys()), "application/did+json"
	case of == "":
		return nil, "", fault.NotFound()
	default:
		keys, err := k.Published(ctx, of)
		if err != nil {
			return nil, "", err
		}
		if name == "jwks.json" {
			answer, media = keys, "application/jwk-set+json"
		} else {
			answer, media = didDocumentOf(k.DID(of), k.base.did, keys), "application/did+json"
		}
	}
	document, err = json.Marshal(answer)
	if err != nil {
		return nil, "", fmt.Errorf("write a key document: %w", err)
	}
	return document, media, nil
}
