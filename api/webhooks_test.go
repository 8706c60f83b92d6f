package api_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAWebhooksLife(t *testing.T) {
	ada := newRig(t).newTenant("Ada")
	made := ada.ask("POST", "/v1/webhooks", `{"url":"https://EXAMPLE.com./hook","event_types":["session.status_idle","budget.threshold","session.status_idle"],"description":"mine"}`, "Idempotency-Key", "w1")
	require.Equal(t, 201, made.StatusCode, made.raw)
	require.Regexp(t, `^whsec_[A-Za-z0-9+/]{43}=$`, made.field(t, "secret"))
	require.Equal(t, "https://example.com/hook", made.field(t, "url"), "in its one spelling")
	require.Equal(t, []any{"budget.threshold", "session.status_idle"}, made.field(t, "event_types"))
	require.Equal(t, string(ada.project), made.field(t, "project_id"), "a project's key makes webhooks of its project")
	again := ada.ask("POST", "/v1/webhooks", `{"url":"https://EXAMPLE.com./hook","event_types":["session.status_idle","budget.threshold","session.status_idle"],"description":"mine"}`, "Idempotency-Key", "w1")
	require.Equal(t, made.raw, again.raw)

	path := made.Header.Get("Location")
	got := ada.ask("GET", path, "")
	require.Equal(t, 200, got.StatusCode)
	require.NotContains(t, got.raw, "whsec_")
	require.NotContains(t, got.raw, `"secret"`)
	changed := ada.ask("POST", path, `{"status":"disabled","description":null}`, "If-Match", got.Header.Get("ETag"))
	require.Equal(t, 200, changed.StatusCode, changed.raw)
	require.Equal(t, "requested", changed.field(t, "disabled_reason"))
	require.Equal(t, 412, ada.ask("POST", path, `{"status":"active"}`, "If-Match", got.Header.Get("ETag")).StatusCode)
	require.Equal(t, "state_conflict", ada.ask("POST", path+"/test", "").code(t))
	require.Equal(t, 200, ada.ask("POST", path, `{"status":"active"}`).StatusCode)

	rotated := ada.ask("POST", path+"/rotate_secret", `{"expire_old_seconds":60}`)
	require.Equal(t, 200, rotated.StatusCode, rotated.raw)
	require.NotEqual(t, made.field(t, "secret"), rotated.field(t, "secret"))
	require.NotNil(t, rotated.field(t, "old_secret_expires_at"))

	sent := ada.ask("POST", path+"/test", "")
	require.Equal(t, 201, sent.StatusCode, sent.raw)
	require.Equal(t, "pending", sent.field(t, "status"))
	require.Equal(t, "webhook.test", sent.field(t, "message.type"))
	delivery, _ := sent.field(t, "id").(string)
	require.Equal(t, sent.raw, ada.ask("GET", path+"/deliveries/"+delivery, "").raw)
	require.Equal(t, "state_conflict", ada.ask("POST", path+"/deliveries/"+delivery+"/redeliver", "").code(t), "it is still under way")
	list := ada.ask("GET", path+"/deliveries?statuses[]=pending", "")
	require.Len(t, list.field(t, "data"), 1)
	require.Empty(t, ada.ask("GET", path+"/deliveries?statuses[]=failed", "").field(t, "data"))

	gone := ada.ask("DELETE", path, "")
	require.Equal(t, 200, gone.StatusCode)
	require.Equal(t, "webhook_deleted", gone.field(t, "type"))
	require.Equal(t, 404, ada.ask("GET", path, "").StatusCode)
	require.NotContains(t, ada.log.String(), "whsec_")
}

func TestAWebhookThatCannotBe(t *testing.T) {
	ada := newRig(t).newTenant("Ada")
	for _, url := range []string{"http://example.com", "https://127.0.0.1/", "https://169.254.169.254/", "https://localhost/", "https://0x7f.1/", "https://u:p@example.com/", "https://example.com:25/", "nonsense"} {
		res := ada.ask("POST", "/v1/webhooks", `{"url":"`+url+`","event_types":["*"]}`)
		require.Equal(t, 400, res.StatusCode, "%s: %s", url, res.raw)
		require.Contains(t, res.raw, `"pointer":"/url"`)
	}
	for _, body := range []string{`{"url":"https://example.com"}`, `{"url":"https://example.com","event_types":[]}`, `{"url":"https://example.com","event_types":["nothing.known"]}`, `{"event_types":["*"]}`} {
		require.Equal(t, 400, ada.ask("POST", "/v1/webhooks", body).StatusCode, body)
	}
}
