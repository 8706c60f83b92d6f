package browser

import (
	"context"
	"fmt"
	"testing"
	"time"

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

// Until waits for an expression of the page to be true, also across a change of pages.
func (tab *Tab) Until(t testing.TB, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab.Ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// An error is a page that is on its way out; the next one is asked again.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")")); err == nil && ok {
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
