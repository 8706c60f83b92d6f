package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// findNamed finds what a person would point at: something visible that can be pressed, by the name that is seen or spoken, brought into
// view, and with nothing lying over it. It answers its middle, or nothing while there is none.
const findNamed = `((name, within) => {
	const plain = (s) => (s ?? "").replace(/\s+/g, " ").trim();
	const top = [...document.querySelectorAll("dialog[open]")].at(-1);
	for (const root of document.querySelectorAll(within || "body")) {
		for (const e of root.querySelectorAll("a[href], button, summary, label, [role=option]")) {
			if (e.disabled || (top && !top.contains(e)) || !e.checkVisibility({visibilityProperty: true})) continue;
			if (plain(e.innerText) !== name && plain(e.getAttribute("aria-label")) !== name && plain(e.title) !== name) continue;
			e.scrollIntoView({block: "center", inline: "nearest", behavior: "instant"});
			const r = e.getClientRects()[0];
			if (!r) continue;
			const x = r.x + r.width / 2, y = r.y + r.height / 2, hit = document.elementFromPoint(x, y);
			if (hit && (e === hit || e.contains(hit))) return JSON.stringify([x, y]);
		}
	}
	return "";
})`

// findLabelled finds the input of a label in the same way.
const findLabelled = `((label) => {
	const plain = (s) => (s ?? "").replace(/\s+/g, " ").trim();
	const named = (e) => [...(e.labels ?? [])].some((l) => plain(l.innerText).replace(/ \(optional\)$/, "") === label) || plain(e.getAttribute("aria-label")) === label;
	const top = [...document.querySelectorAll("dialog[open]")].at(-1);
	for (const e of document.querySelectorAll("input, textarea, select")) {
		if (e.disabled || (top && !top.contains(e)) || !e.checkVisibility({visibilityProperty: true}) || !named(e)) continue;
		e.scrollIntoView({block: "center", inline: "nearest", behavior: "instant"});
		const r = e.getBoundingClientRect(), x = r.x + Math.min(r.width / 2, 40), y = r.y + Math.min(r.height / 2, 40), hit = document.elementFromPoint(x, y);
		if (hit === e) return JSON.stringify([x, y]);
	}
	return "";
})`

// Choose clicks, with the mouse, what bears the name; within narrows it to what a selector finds and may be empty.
func (tab *Tab) Choose(t testing.TB, name, within string) {
	t.Helper()
	tab.clickAt(t, fmt.Sprintf("%s(%q, %q)", findNamed, name, within), "something to click that is named "+name)
}

// Write clicks into the input with the label and replaces what it holds, as if typed or pasted.
func (tab *Tab) Write(t testing.TB, label, text string) {
	t.Helper()
	// A page that is still being laid out may move under the hand: what was clicked is looked at before anything is written into it.
	for deadline := time.Now().Add(patience); ; {
		tab.clickAt(t, fmt.Sprintf("%s(%q)", findLabelled, label), "an input that is labelled "+label)
		now := tab.Focused(t)
		if strings.TrimSuffix(now, " (optional)") == label {
			break
		}
		require.True(t, time.Now().Before(deadline), "a click on the input that is labelled %q goes to %q", label, now)
	}
	tab.within(t, "select what "+label+" holds", chromedp.KeyEvent("a", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	tab.Insert(t, text)
}

// Insert puts text where the cursor is, as an input method or a paste does.
func (tab *Tab) Insert(t testing.TB, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab.Ctx, patience)
	defer cancel()
	_, err := chromedp.Call(ctx, input.InsertText, input.InsertTextParams{Text: text})
	require.NoError(t, err)
}

func (tab *Tab) clickAt(t testing.TB, find, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab.Ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if at, err := chromedp.Run(ctx, chromedp.Evaluate[string](find)); err == nil && at != "" {
			var xy [2]float64
			require.NoError(t, json.Unmarshal([]byte(at), &xy))
			require.NoError(t, chromedp.Do(ctx, chromedp.MouseClickXY(xy[0], xy[1])))
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("there is not %s: at %s the page says: %.1500s; noted: %v", what, tab.Path(t), tab.Text(t, "body"), tab.Noted())
		case <-tick.C:
		}
	}
}

// UntilSays waits until what the selector finds shows the text.
func (tab *Tab) UntilSays(t testing.TB, selector, text string) {
	t.Helper()
	tab.Until(t, fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

// Clipboard is what was copied last in this tab.
func (tab *Tab) Clipboard(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab.Ctx, patience)
	defer cancel()
	_, err := chromedp.CallBrowser(ctx, browser.SetPermission, browser.SetPermissionParams{
		Permission: &browser.PermissionDescriptor{Name: "clipboard-read"}, Setting: browser.PermissionSettingGranted,
		BrowserContextID: chromedp.FromContext(tab.Ctx).BrowserContextID,
	})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, page.BringToFront, cdp.Empty{})
	require.NoError(t, err)
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("navigator.clipboard.readText()", chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	return text
}

// Chord presses keys while Control is held.
func (tab *Tab) Chord(t testing.TB, keys string) {
	t.Helper()
	tab.within(t, "press Control and "+keys, chromedp.KeyEvent(keys, chromedp.KeyModifiers(chromedp.ModifierCtrl)))
}

const nameOfFocused = `(() => {
	const plain = (s) => (s ?? "").replace(/\s+/g, " ").trim();
	const e = document.activeElement;
	if (!e || e === document.body) return "";
	return plain(e.getAttribute("aria-label")) || plain(e.labels?.[0]?.innerText) || plain(e.innerText) || plain(e.title);
})()`

// Focused is the name of what has the focus, as a screen reader would say it.
func (tab *Tab) Focused(t testing.TB) string {
	t.Helper()
	name, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[string](nameOfFocused))
	require.NoError(t, err)
	return name
}

// TabTo presses Tab until what bears the name has the focus, and requires on the way that each stop can be seen to have it.
func (tab *Tab) TabTo(t testing.TB, name string) {
	t.Helper()
	var passed []string
	for range 120 {
		now := tab.Focused(t)
		if now == name {
			return
		}
		passed = append(passed, now)
		tab.Press(t, "\t")
		seen, err := chromedp.Run(tab.Ctx, chromedp.Evaluate[bool](focusIsSeen))
		require.NoError(t, err)
		require.True(t, seen, "nothing shows that %q has the focus", tab.Focused(t))
	}
	t.Fatalf("Tab does not lead to %q at %s; it led to %q", name, tab.Path(t), passed)
}

// focusIsSeen: an outline or a shadow, on the element or on what wraps it. The page's own end takes no focus.
const focusIsSeen = `(() => {
	const e = document.activeElement;
	if (!e || e === document.body) return true;
	for (let at = e, n = 0; at && n < 2; at = at.parentElement, n++) {
		const s = getComputedStyle(at);
		if ((s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0) || (at === e && s.boxShadow !== "none")) return true;
	}
	return false;
})()`
