package ui

import (
	"context"
	"io"
	"sort"

	"github.com/a-h/templ"
)

// icons are drawn on a grid of 16, as strokes of 1.5 unless a shape says otherwise.
var icons = map[string]string{
	"mark":          `<path d="M13.6 5.2A6.25 6.25 0 1 0 14.25 8" stroke-width="1.8"/><circle cx="8" cy="8" r="1.9" fill="currentColor" stroke="none"/><circle cx="12.4" cy="3.6" r="1.5" fill="currentColor" stroke="none"/>`,
	"overview":      `<rect x="2" y="2" width="5" height="6" rx="1.2"/><rect x="9" y="2" width="5" height="3.5" rx="1.2"/><rect x="2" y="10.5" width="5" height="3.5" rx="1.2"/><rect x="9" y="8" width="5" height="6" rx="1.2"/>`,
	"agent":         `<rect x="2.5" y="5" width="11" height="8.5" rx="2.2"/><path d="M8 5V2.6M6 8.6v1.2M10 8.6v1.2M.9 8.4v2M15.1 8.4v2"/><circle cx="8" cy="2" r=".7" fill="currentColor" stroke="none"/>`,
	"playground":    `<path d="M2.5 4.5a2 2 0 0 1 2-2h7a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2h-7a2 2 0 0 1-2-2z"/><path d="M6.7 5.7v4.6L10.4 8z" fill="currentColor" stroke-linejoin="round"/>`,
	"session":       `<path d="M2 4.2a1.7 1.7 0 0 1 1.7-1.7h8.6A1.7 1.7 0 0 1 14 4.2v7.6a1.7 1.7 0 0 1-1.7 1.7H3.7A1.7 1.7 0 0 1 2 11.8z"/><path d="m4.8 6 2.2 2-2.2 2M8.6 10.4h2.8"/>`,
	"trace":         `<path d="M2 3.5h6M4.5 8h7M8.5 12.5H14"/>`,
	"key":           `<circle cx="5" cy="11" r="2.9"/><path d="m7.1 8.9 6-6M10.4 5.6l2.1 2.1"/>`,
	"fingerprint":   `<path d="M3 9.500V8a5 5 0 0 1 10 0v1.200c0 1.400-.2 2.600-.6 3.800M5.500 12.800c.3-1 .5-2 .5-3.300V8a2 2 0 1 1 4 0v1.500c0 1.600-.3 3-.8 4.300M8 8v1.600c0 1.700-.3 3.200-1 4.600"/>`,
	"settings":      `<path d="M2 4.5h6.5M12 4.5h2M2 11.5h2M7.5 11.5H14"/><circle cx="10.2" cy="4.5" r="1.8"/><circle cx="5.8" cy="11.5" r="1.8"/>`,
	"check":         `<path d="m3.2 8.4 3.2 3.2 6.4-7"/>`,
	"close":         `<path d="m4 4 8 8M12 4l-8 8"/>`,
	"plus":          `<path d="M8 3v10M3 8h10"/>`,
	"chevron-down":  `<path d="m4 6.2 4 4 4-4"/>`,
	"chevron-right": `<path d="m6.2 4 4 4-4 4"/>`,
	"chevron-left":  `<path d="m9.8 4-4 4 4 4"/>`,
	"chevrons":      `<path d="m5 6 3-3 3 3M5 10l3 3 3-3"/>`,
	"arrow-right":   `<path d="M3 8h10M9 4l4 4-4 4"/>`,
	"arrow-up":      `<path d="M8 13V3M4 7l4-4 4 4"/>`,
	"arrow-down":    `<path d="M8 3v10M4 9l4 4 4-4"/>`,
	"copy":          `<rect x="5.5" y="5.5" width="8" height="8" rx="1.6"/><path d="M10.5 5.5V4a1.5 1.5 0 0 0-1.5-1.5H4A1.5 1.5 0 0 0 2.5 4v5A1.5 1.5 0 0 0 4 10.5h1.5"/>`,
	"external":      `<path d="M9.5 2.5h4v4M13.2 2.8 7.5 8.5M11.5 9.5v2.4a1.6 1.6 0 0 1-1.6 1.6H4.1a1.6 1.6 0 0 1-1.6-1.6V6.1a1.6 1.6 0 0 1 1.6-1.6h2.4"/>`,
	"search":        `<circle cx="7" cy="7" r="4.4"/><path d="m10.4 10.4 3.1 3.1"/>`,
	"menu":          `<path d="M2.5 4.5h11M2.5 8h11M2.5 11.5h11"/>`,
	"sidebar":       `<rect x="2" y="2.5" width="12" height="11" rx="2"/><path d="M6.3 2.5v11"/>`,
	"sun":           `<circle cx="8" cy="8" r="2.8"/><path d="M8 1.5v1.4M8 13.1v1.4M1.5 8h1.4M13.1 8h1.4M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1"/>`,
	"moon":          `<path d="M13.4 9.6A5.8 5.8 0 0 1 6.4 2.6a5.8 5.8 0 1 0 7 7z"/>`,
	"monitor":       `<rect x="2" y="2.5" width="12" height="8.5" rx="1.6"/><path d="M5.5 13.5h5M8 11v2.5"/>`,
	"user":          `<circle cx="8" cy="5.4" r="2.7"/><path d="M2.8 13.5c.6-2.6 2.7-4 5.2-4s4.6 1.4 5.2 4"/>`,
	"sign-out":      `<path d="M6 2.500H4A1.5 1.5 0 0 0 2.5 4v8A1.5 1.5 0 0 0 4 13.500h2M10 4.8 13.2 8 10 11.200M13 8H6"/>`,
	"folder":        `<path d="M2 4.500A1.5 1.5 0 0 1 3.5 3h2.700l1.6 1.800h4.700A1.5 1.5 0 0 1 14 6.300v5.200a1.5 1.5 0 0 1-1.5 1.500h-9A1.5 1.5 0 0 1 2 11.500z"/>`,
	"file":          `<path d="M9 2H4.800a1.3 1.3 0 0 0-1.3 1.300v9.400A1.3 1.3 0 0 0 4.8 14h6.400a1.3 1.3 0 0 0 1.3-1.300V5.500zM9 2v3.500h3.5"/>`,
	"download":      `<path d="M8 2.500v7.500M4.8 7 8 10.2 11.2 7M2.5 12v1.500h11V12"/>`,
	"send":          `<path d="M8 13V3.500M4 7.200l4-4 4 4" stroke-width="1.8"/>`,
	"stop":          `<rect x="3.5" y="3.5" width="9" height="9" rx="1.6" fill="currentColor"/>`,
	"square":        `<rect x="3.5" y="3.5" width="9" height="9" rx="1.2"/>`,
	"pause":         `<path d="M5.5 3.500v9M10.5 3.500v9" stroke-width="2"/>`,
	"play":          `<path d="M5 3.200v9.600L12.6 8z" fill="currentColor"/>`,
	"clock":         `<circle cx="8" cy="8" r="5.8"/><path d="M8 4.800V8l2.2 1.6"/>`,
	"aerial":        `<path d="M4.4 11.600a5 5 0 0 1 0-7.200M11.6 4.400a5 5 0 0 1 0 7.200M6.4 9.600a2.2 2.2 0 0 1 0-3.200M9.6 6.400a2.2 2.2 0 0 1 0 3.2"/><circle cx="8" cy="8" r=".6" fill="currentColor"/>`,
	"mandate":       `<path d="M4 2.500h6l2.500 2.500v8.500H4zM10 2.500V5h2.500M6 7.500h4M6 9.500h2.500"/><path d="m8.500 12 1 1 2-2.200"/>`,
	"hand":          `<path d="M5 8.500V4a1 1 0 0 1 2 0v3.500V3a1 1 0 0 1 2 0v4.500V4a1 1 0 0 1 2 0v6.200c0 2.3-1.5 3.8-3.6 3.8-1.7 0-2.6-.8-3.3-2L2.7 9.600c-.5-.9.6-1.7 1.3-1z"/>`,
	"bubble":        `<path d="M2.5 4.500a1.8 1.8 0 0 1 1.8-1.800h7.400a1.8 1.8 0 0 1 1.8 1.800v4.700a1.8 1.8 0 0 1-1.8 1.800H7l-3 2.600V11a1.7 1.7 0 0 1-1.5-1.800z"/>`,
	"coin":          `<circle cx="8" cy="8" r="5.8"/><path d="M9.8 6.200c-.3-.6-1-.9-1.8-.9-1 0-1.8.5-1.8 1.3 0 1.9 3.7.9 3.7 2.8 0 .8-.8 1.3-1.9 1.3-.9 0-1.6-.4-1.9-1M8 4.200v1M8 10.800v1"/>`,
	"budget":        `<path d="M2.2 10.8a6 6 0 1 1 11.6 0M8 9.600l2.8-3.4"/><circle cx="8" cy="10" r="1" fill="currentColor" stroke="none"/>`,
	"chart":         `<path d="M2.5 13.500h11M4.5 11V7.500M8 11V3.500M11.5 11V6"/>`,
	"ledger":        `<path d="M3.5 2.500h9v11h-9zM6.2 2.500v11M8.2 5.500h2.500M8.2 8h2.500M8.2 10.500h2.500"/>`,
	"empty-coin":    `<circle cx="8" cy="8" r="5.5"/><path d="m4.4 11.6 7.2-7.2"/>`,
	"tick-disc":     `<circle cx="8" cy="8" r="6.5" fill="currentColor" stroke="none"/><path d="m5.2 8.3 2 2 3.7-4.2" stroke="var(--tone-tint, var(--page))" stroke-width="1.7"/>`,
	"octagon":       `<path d="M5.4 1.600h5.200l3.8 3.800v5.200l-3.8 3.800H5.400l-3.8-3.800V5.400z" fill="currentColor" stroke="none"/><path d="m5.9 5.9 4.2 4.200M10.1 5.900l-4.2 4.2" stroke="var(--tone-tint, var(--page))" stroke-width="1.7"/>`,
	"ring-dotted":   `<circle cx="8" cy="8" r="5.5" stroke-dasharray="1.8 2.520" stroke-width="1.8"/>`,
	"arc":           `<circle cx="8" cy="8" r="5.5" stroke-opacity=".25" stroke-width="1.9"/><path d="M8 2.500A5.5 5.5 0 0 1 13.5 8" stroke-width="1.9"/>`,
	"barred":        `<circle cx="8" cy="8" r="5.8"/><path d="m4 4 8 8"/>`,
	"diamond":       `<path d="M8 1.5 14.5 8 8 14.5 1.5 8z"/><path d="M6.6 6.700c.1-.8.7-1.2 1.4-1.200s1.4.4 1.4 1.100c0 .9-1.4 1-1.4 2M8 10.400v.2"/>`,
	"info":          `<circle cx="8" cy="8" r="5.8"/><path d="M8 7.500v3.300M8 5.200v.2"/>`,
	"warning":       `<path d="M8 2.3 14.3 13H1.700zM8 6.500v3M8 11.300v.1"/>`,
	"book":          `<path d="M8 4c-1.4-1-3-1.3-5.5-1.300v9.600c2.5 0 4.1.3 5.5 1.3 1.4-1 3-1.3 5.5-1.300V2.700C11 2.7 9.4 3 8 4zm0 0v9.5"/>`,
	"more":          `<circle cx="3.5" cy="8" r="1.1" fill="currentColor" stroke="none"/><circle cx="8" cy="8" r="1.1" fill="currentColor" stroke="none"/><circle cx="12.5" cy="8" r="1.1" fill="currentColor" stroke="none"/>`,
	"compare":       `<rect x="2" y="3" width="4.8" height="10" rx="1.2"/><rect x="9.2" y="3" width="4.8" height="10" rx="1.2"/>`,
	"organisation":  `<path d="M3 13.500V3.800A1.3 1.3 0 0 1 4.3 2.500h4.400A1.3 1.3 0 0 1 10 3.800v9.700M10 6.500h2a1 1 0 0 1 1 1v6M1.5 13.500h13M5.5 5.500h2M5.5 8h2M5.5 10.500h2"/>`,
	"mail":          `<rect x="1.8" y="3.2" width="12.4" height="9.6" rx="1.8"/><path d="m2.2 4.4 5.8 4.3 5.8-4.3"/>`,
	"shield":        `<path d="M8 1.8 13 3.600v4c0 3.2-2.1 5.5-5 6.6-2.9-1.1-5-3.4-5-6.600v-4z"/><path d="m5.8 7.9 1.6 1.6 2.9-3.2"/>`,
	"tool":          `<path d="M13.3 4.6 11 6.9 9.1 5l2.3-2.300a3.7 3.7 0 0 0-4.8 4.700L2.5 11.500l2 2 4.1-4.100a3.7 3.7 0 0 0 4.7-4.800z"/>`,
	"model":         `<path d="M8 1.8 9.5 6.5 14.2 8 9.5 9.5 8 14.2 6.5 9.5 1.8 8l4.7-1.500z"/>`,
	"sandbox":       `<path d="m8 1.8 5.5 3v6.400L8 14.200l-5.5-3V4.800zM2.6 4.9 8 7.900l5.4-3M8 7.900v6.2"/>`,
	"link":          `<path d="M6.8 9.2 9.2 6.800M7.3 4.700l1.5-1.500a2.8 2.8 0 0 1 4 4l-1.5 1.500M8.7 11.300l-1.5 1.500a2.8 2.8 0 0 1-4-4l1.5-1.5"/>`,
	"branch":        `<circle cx="4.5" cy="3.6" r="1.6"/><circle cx="4.5" cy="12.4" r="1.6"/><circle cx="11.5" cy="5.6" r="1.6"/><path d="M4.5 5.200v5.600M11.5 7.200c0 2.2-2 2.6-4 2.7-1.6.1-2.6.4-3 1"/>`,
	"thought":       `<path d="M5.8 11.200a4.5 4.5 0 1 1 4.4 0v1.500H5.800zM6.5 14.500h3"/>`,
	"wrap":          `<path d="M2 3.500h12M2 8h9.500a2.2 2.2 0 0 1 0 4.500H8.500M10 10.8 8.3 12.5 10 14.200M2 12.500h3"/>`,
	"lines":         `<path d="M2.5 4h11M2.5 8h11M2.5 12h7"/>`,
	"refresh":       `<path d="M13.2 6.200A5.6 5.6 0 0 0 3 5.400M2.8 2.500v3h3M2.8 9.800A5.6 5.6 0 0 0 13 10.600M13.2 13.500v-3h-3"/>`,
	"trash":         `<path d="M2.8 4.300h10.400M6 4.300V3a.8.8 0 0 1 .8-.8h2.400a.8.8 0 0 1 .8.8v1.300M4.2 4.300l.5 8.300a1.2 1.2 0 0 0 1.2 1.100h4.200a1.2 1.2 0 0 0 1.2-1.100l.5-8.3"/>`,
	"keyboard":      `<rect x="1.5" y="4" width="13" height="8.5" rx="1.6"/><path d="M4 6.800h.1M6.7 6.800h.1M9.3 6.800h.1M12 6.800h.1M5 9.800h6"/>`,
	"globe":         `<circle cx="8" cy="8" r="5.8"/><path d="M2.2 8h11.600M8 2.200c1.7 1.7 2.4 3.6 2.4 5.800S9.7 12.1 8 13.800C6.3 12.1 5.6 10.2 5.6 8S6.3 3.9 8 2.200z"/>`,
	"gate":          `<path d="M2.5 13.500v-7L8 2.800l5.5 3.700v7M5.5 13.500v-5h5v5M8 8.500v5"/>`,
	"flag":          `<path d="M3.5 14V2.500M3.5 3h8.300l-1.8 3 1.8 3H3.5"/>`,
}

// Icons lists the names that Icon takes, sorted.
func Icons() []string {
	names := make([]string, 0, len(icons))
	for n := range icons {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Icon draws an icon for the eye only; the word beside it is what a screen reader hears. An unknown name panics: a test draws every page.
func Icon(name string) templ.Component { return icon(name, "icon") }

// IconSmall draws the icon in 14 px.
func IconSmall(name string) templ.Component { return icon(name, "icon icon-s") }

// IconLarge draws the icon in 20 px.
func IconLarge(name string) templ.Component { return icon(name, "icon icon-l") }

func icon(name, class string) templ.Component {
	shape, ok := icons[name]
	if !ok {
		panic("ui: no icon named " + name)
	}
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, `<svg class="`+class+`" viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">`+shape+`</svg>`)
		return err
	})
}
