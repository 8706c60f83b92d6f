package browser

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

//go:embed axe-4.14.1.min.js
var axe string

var screenshots = flag.String("screenshots", "", "folder in which the browser tests keep a picture of every page that they see")

// Browser is a running Chromium. It belongs to one test.
type Browser struct {
	ctx context.Context
}

// Start starts Chromium and stops it at the test's end. A missing Chromium is a failure: without it nothing is proved.
func Start(t testing.TB) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		path, err = exec.LookPath("google-chrome")
	}
	require.NoError(t, err, "install chromium: apt-get install chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("font-render-hinting", "none"), chromedp.WSURLReadTimeout(60*time.Second))
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		stop()
		stopAllocator()
	})
	require.NoError(t, chromedp.Do(ctx), "start chromium")
	return &Browser{ctx: ctx}
}

// Look is a size and a theme in which a page is seen.
type Look struct {
	Width, Height int64
	Dark          bool
}

// Name is used in file names and failures: "1440-light".
func (l Look) Name() string {
	theme := "light"
	if l.Dark {
		theme = "dark"
	}
	return fmt.Sprintf("%d-%s", l.Width, theme)
}

// AllLooks are a wide screen and a phone, each light and dark.
var AllLooks = []Look{{1440, 900, false}, {1440, 900, true}, {390, 844, false}, {390, 844, true}}

// Looks are those in which a page is judged: each theme and each width once, and all four where pictures are kept. The page of all
// components is always seen in all four.
func Looks() []Look {
	if *screenshots != "" {
		return AllLooks
	}
	return []Look{AllLooks[0], AllLooks[3]}
}

// Tab is a page of the browser that notes what goes wrong in it.
type Tab struct {
	Ctx   context.Context
	mu    sync.Mutex
	noted []string
}

// Open opens a tab of its own, with no cookies of another, and closes it at the test's end.
func (b *Browser) Open(t testing.TB) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	tab := &Tab{Ctx: ctx}
	// A new target writes nothing before it exists, so it is made first.
	require.NoError(t, chromedp.Do(ctx))
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return // the tab is closed
			}
			// An answer of 4xx is logged by the browser whether or not it was meant.
			if m.Source == "network" {
				continue
			}
			if m.IsException() || m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.Source == "security" {
				tab.note(m.Source + " " + m.String())
			}
		}
	}()
	return tab
}

func (tab *Tab) note(text string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.noted = append(tab.noted, text)
}

// Noted returns and forgets what went wrong so far: scripts' errors and violations of the policy.
func (tab *Tab) Noted() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	out := tab.noted
	tab.noted = nil
	return out
}

// See makes the tab look as l says.
func (tab *Tab) See(t testing.TB, l Look) {
	t.Helper()
	scheme := "light"
	if l.Dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(tab.Ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.Width, Height: l.Height, DeviceScaleFactor: 1, Mobile: l.Width < 720})
	require.NoError(t, err)
	_, err = chromedp.Call(tab.Ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	require.NoError(t, err)
}

// Judge opens the address in every look and requires of each: nothing serious from axe-core, no violation of the policy and no error of
// a script, and no sideways scroll. With -screenshots it keeps a picture as name-look.png.
func (b *Browser) Judge(t *testing.T, name, address string) {
	t.Helper()
	tab := b.Open(t)
	for _, l := range AllLooks {
		tab.See(t, l)
		require.NoError(t, chromedp.Do(tab.Ctx, chromedp.Navigate(address)))
		tab.JudgeHere(t, name, l)
	}
}

// JudgeHere judges the page that the tab shows now.
func (tab *Tab) JudgeHere(t *testing.T, name string, l Look) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab.Ctx, 60*time.Second)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("document.fonts.ready.then(() => true)", chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	keep(ctx, t, name+"-"+l.Name())

	sideways, err := chromedp.Run(ctx, chromedp.Evaluate[float64]("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
	require.NoError(t, err)
	if sideways > 0 {
		widest, err := chromedp.Run(ctx, chromedp.Evaluate[string](findWidest))
		require.NoError(t, err)
		t.Errorf("%s %s scrolls sideways by %.0f px: %s", name, l.Name(), sideways, widest)
	}
	for _, bad := range tab.Noted() {
		t.Errorf("%s %s: %s", name, l.Name(), bad)
	}
	for _, v := range violations(ctx, t) {
		t.Errorf("%s %s: axe: %s", name, l.Name(), v)
	}
}

const findWidest = `[...document.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).slice(0, 4).map(e => e.tagName + "." + e.className + " " + Math.round(e.getBoundingClientRect().right)).join(", ")`

func keep(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	require.NoError(t, os.MkdirAll(*screenshots, 0o755))
	beyond := true
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng, CaptureBeyondViewport: &beyond})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(*screenshots, name+".png"), shot.Data, 0o644))
}

type violation struct {
	ID     string `json:"id"`
	Impact string `json:"impact"`
	Help   string `json:"help"`
	Nodes  []struct {
		HTML    string   `json:"html"`
		Target  []string `json:"target"`
		Summary string   `json:"failureSummary"`
	} `json:"nodes"`
}

// violations runs axe with the rules of WCAG 2.2 AA and returns what is moderate or worse.
func violations(ctx context.Context, t *testing.T) []string {
	t.Helper()
	run := `axe.run(document, {runOnly: ["wcag2a","wcag2aa","wcag21a","wcag21aa","wcag22aa","best-practice"], resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations))`
	_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](axe+";true"))
	require.NoError(t, err)
	raw, err := chromedp.Run(ctx, chromedp.Evaluate[string](run, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	var found []violation
	require.NoError(t, json.Unmarshal([]byte(raw), &found))
	var out []string
	for _, v := range found {
		for i, n := range v.Nodes {
			if i == 4 {
				out = append(out, fmt.Sprintf("%s: and %d more", v.ID, len(v.Nodes)-i))
				break
			}
			out = append(out, fmt.Sprintf("%s (%s): %s\n    %s\n    %s", v.ID, v.Impact, v.Help, n.HTML, strings.ReplaceAll(n.Summary, "\n", " ")))
		}
	}
	return out
}

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
	ctx, cancel := context.WithTimeout(tab.Ctx, 20*time.Second)
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
	ctx, cancel := context.WithTimeout(tab.Ctx, 20*time.Second)
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
