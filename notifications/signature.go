package notifications

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// The form of a secret and of a signature is that of Standard Webhooks (standardwebhooks.com), so that its libraries verify ours.
const (
	secretPrefix = "whsec_"
	secretBytes  = 32
)

func newSecret() string {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // crypto/rand.Read never returns an error
	return secretPrefix + base64.StdEncoding.EncodeToString(raw)
}

// Sign is the header webhook-signature of a message: one signature for each secret, the newest first.
func Sign(secrets []string, messageID string, at time.Time, body []byte) (string, error) {
	parts := make([]string, 0, len(secrets))
	for _, s := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, secretPrefix))
		if err != nil || len(key) == 0 {
			return "", errors.New("a webhook's secret is not in its form") // never with the secret in it
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(messageID + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		parts = append(parts, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(parts, " "), nil
}
