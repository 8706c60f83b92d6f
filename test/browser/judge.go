package browser

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

//go:embed axe-4.14.1.min.js
var axe string

var screenshots = flag.String("screenshots", "", "folder in which the browser tests keep a picture of every page that they see")

// KeepPicturesIn keeps pictures in a folder unless the flag -screenshots names another.
func KeepPicturesIn(folder string) {
	if *screenshots == "" {
		*screenshots = folder
	}
}

// Looks are those in which a page is judged: each theme and each width once, and all four where pictures are kept. The page of all
// components is always seen in all four.
func Looks() []Look {
	if *screenshots != "" {
		return AllLooks
	}
	return []Look{AllLooks[0], AllLooks[3]}
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
	ctx, cancel := context.WithTimeout(tab.Ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("document.fonts.ready.then(() => true)", chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	tab.keep(ctx, t, name, l)

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

func (tab *Tab) keep(ctx context.Context, t *testing.T, name string, l Look) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	require.NoError(t, os.MkdirAll(*screenshots, 0o755))
	// The window is made as high as the page, so that what sticks to its edges is in its place on the picture.
	height, err := chromedp.Run(ctx, chromedp.Evaluate[int64]("document.documentElement.scrollHeight"))
	require.NoError(t, err)
	if height > l.Height {
		tall := l
		tall.Height = min(height, 12_000)
		tab.See(t, tall)
		defer tab.See(t, l)
	}
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(*screenshots, name+"-"+l.Name()+".png"), shot.Data, 0o644))
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
