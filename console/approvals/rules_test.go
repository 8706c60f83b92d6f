package approvals

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/approval"
)

// TestADraftedWaiverKeepsItsAmount: what was looked at for so much is not saved for any amount.
func TestADraftedWaiverKeepsItsAmount(t *testing.T) {
	form := url.Values{"name": {"Coffee"}, "subject": {"*"}, "tool": {"buy"}, "amount_at_most": {"0.000005"}}
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
	req.Header.Set(echo.HeaderContentType, echo.MIMEApplicationForm)
	r, problems := readRule(echo.New().NewContext(req, httptest.NewRecorder()), approval.Rule{Outcome: approval.Waive, Waives: approval.Taint})
	require.Empty(t, problems)
	require.NotNil(t, r.Condition.AmountAtMost, "the waiver is for any amount")
	require.EqualValues(t, 5000, *r.Condition.AmountAtMost)
	var page strings.Builder
	require.NoError(t, Form(ruleForm{Waive: true, Values: map[string]string{"amount_at_most": "0.000005"}}).Render(t.Context(), &page))
	require.Contains(t, page.String(), `name="amount_at_most"`)
}
