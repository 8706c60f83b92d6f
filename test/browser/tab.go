package browser

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Visit opens an address.
func (tab *Tab) Visit(t testing.TB, address string) {
	t.Helper()
	require.NoError(t, chromedp.Do(tab.Ctx, chromedp.Navigate(address)), address)
}

// Type puts text into the first element that the selector finds.
func (tab *Tab) Type(t testing.TB, selector, text string) {
	t.Helper()
	tab.within(t, "type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Fill replaces the value of an input.
func (tab *Tab) Fill(t testing.TB, selector, text string) {
	t.Helper()
	tab.within(t, "fill "+selector, chromedp.SetValue(chromedp.CSS(selector), text))
}

// Click clicks the first element that the selector finds, once it is visible.
func (tab *Tab) Click(t testing.TB, selector string) {
	t.Helper()
	tab.within(t, "click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// Press sends keys to the page.
func (tab *Tab) Press(t testing.TB, keys string) {
	t.Helper()
	tab.within(t, "press "+keys, chromedp.KeyEvent(keys))
}

func (tab *Tab) within(t testing.TB, what string, action chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab.Ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil {
		t.Fatalf("%s: %v; the page says: %.600s", what, err, tab.Text(t, "body"))
	}
}

// Text is what the element shows.
func (tab *Tab) Text(t testing.TB, selector string) string {
	t.Helper()
	text, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
	require.NoError(t, err)
	return text
}

// Path is the address that the tab shows, without its origin.
func (tab *Tab) Path(t testing.TB) string {
	t.Helper()
	path, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[string]("location.pathname + location.search"))
	require.NoError(t, err)
	return path
}

// Until waits for an expression of the page to be true, also across a change of pages. The page must be loaded, as a person would wait
// for it to be.
func (tab *Tab) Until(t testing.TB, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab.Ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// An error is a page that is on its way out; the next one is asked again.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("document.readyState === 'complete' && Boolean("+expression+")")); err == nil && ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: at %s the page says: %.1500s; noted: %v", expression, tab.Path(t), tab.Text(t, "body"), tab.Noted())
		case <-tick.C:
		}
	}
}

// Value is what an input holds.
func (tab *Tab) Value(t testing.TB, selector string) string {
	t.Helper()
	text, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.value ?? ''", selector)))
	require.NoError(t, err)
	return text
}

// Attribute is an attribute of the first element that the selector finds, or "".
func (tab *Tab) Attribute(t testing.TB, selector, name string) string {
	t.Helper()
	text, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.getAttribute(%q) ?? ''", selector, name)))
	require.NoError(t, err)
	return text
}

// Texts is what each element shows that the selector finds, in the page's order.
func (tab *Tab) Texts(t testing.TB, selector string) []string {
	t.Helper()
	texts, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[[]string](fmt.Sprintf("[...document.querySelectorAll(%q)].map((e) => e.innerText)", selector)))
	require.NoError(t, err)
	return texts
}

// Attributes is Attribute of each element.
func (tab *Tab) Attributes(t testing.TB, selector, name string) []string {
	t.Helper()
	out, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[[]string](fmt.Sprintf("[...document.querySelectorAll(%q)].map((e) => e.getAttribute(%q) ?? '')", selector, name)))
	require.NoError(t, err)
	return out
}

// Reload loads the page again.
func (tab *Tab) Reload(t testing.TB) {
	t.Helper()
	require.NoError(t, chromedp.Do(tab.Ctx, chromedp.Reload()))
}

// Loaded tells one load of a page from the next: it stays the same while a page is only patched.
func (tab *Tab) Loaded(t testing.TB) float64 {
	t.Helper()
	at, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[float64]("performance.timeOrigin"))
	require.NoError(t, err)
	return at
}

// Cookies are those that the tab would send to the page that it shows.
func (tab *Tab) Cookies(t testing.TB) map[string]string {
	t.Helper()
	found, err := chromedp.Call(tab.Ctx, network.GetCookies, network.GetCookiesParams{})
	require.NoError(t, err)
	out := map[string]string{}
	for _, c := range found.Cookies {
		out[c.Name] = c.Value
	}
	return out
}
