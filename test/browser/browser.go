package browser

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// patience is how long an act waits for what it needs: the machine may be at work on much else.
const patience = 60 * time.Second

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
		chromedp.Flag("font-render-hinting", "none"), chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(patience))
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
