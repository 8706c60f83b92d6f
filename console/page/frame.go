package page

import (
	"net/url"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

// Viewer is the signed-in person who looks at a page.
type Viewer struct {
	User     id.User
	SignIn   id.SignIn
	Name     string
	Email    string
	Verified bool
	// Orgs are the organisations that the person is a member of, with their projects, for the switcher.
	Orgs []OrgEntry
}

// DisplayName is the person's name, or the e-mail address of somebody who gave none.
func (v Viewer) DisplayName() string {
	if v.Name != "" {
		return v.Name
	}
	return v.Email
}

// OrgEntry is an organisation in the switcher.
type OrgEntry struct {
	ID       id.Org
	Name     string
	Slug     string
	Projects []ProjectEntry
}

// ProjectEntry is a project in the switcher.
type ProjectEntry struct {
	ID   id.Project
	Name string
	Slug string
}

// Place is the project that a page is about.
type Place struct {
	Org         id.Org
	OrgName     string
	OrgSlug     string
	Project     id.Project
	ProjectName string
	ProjectSlug string
	// Role is the name of the viewer's: owner, admin, developer, viewer or billing, or of one that the organisation made.
	Role string
	// Acting is the viewer in this organisation.
	Acting principal.Principal
}

// Path is the address of something in the project: Path("agents", id) is /o/{org}/p/{project}/agents/{id}.
func (p Place) Path(parts ...string) string {
	s := "/o/" + url.PathEscape(p.OrgSlug) + "/p/" + url.PathEscape(p.ProjectSlug)
	for _, part := range parts {
		s += "/" + url.PathEscape(part)
	}
	return s
}

// Can says whether the viewer's role has the permission, so that what would be refused is not offered. It refuses nothing itself: Need and
// Require do.
func (p Place) Can(permission tenants.Permission) bool { return tenants.Allowed(p.Acting, permission) }

// Crumb is a step of the path to a page; the last has no address.
type Crumb struct {
	Label string
	Href  string
}

// Frame is what the shell needs to know of the page inside it.
type Frame struct {
	Title  string
	Nav    string
	Crumbs []Crumb
	// Panes makes the page as high as the window, its panes scrolling by themselves.
	Panes bool
	// Live shows the state of the page's stream in the top bar.
	Live bool

	Viewer Viewer
	Place  Place
	// Path is the request's path and query, for what must come back here.
	Path string
	// Flash is a sentence about what the last request did.
	Flash string
	// Banner is a word over the whole console, such as "Local".
	Banner string
}

const (
	viewerKey = "ambit.viewer"
	placeKey  = "ambit.place"
	bannerKey = "ambit.banner"
)

// SetViewer says who is looking; the console's middleware calls it.
func SetViewer(c echo.Context, v Viewer) { c.Set(viewerKey, v) }

// SetPlace says which project the request is about; the console's middleware calls it.
func SetPlace(c echo.Context, p Place) { c.Set(placeKey, p) }

// SetBanner gives every page of this request a word over it.
func SetBanner(c echo.Context, text string) { c.Set(bannerKey, text) }

// ViewerOf returns who is looking, and false for somebody who is not signed in.
func ViewerOf(c echo.Context) (Viewer, bool) {
	v, ok := c.Get(viewerKey).(Viewer)
	return v, ok
}

// PlaceOf returns the project that the request is about.
func PlaceOf(c echo.Context) Place {
	p, _ := c.Get(placeKey).(Place)
	return p
}

// NewFrame begins the frame of a page from the request.
func NewFrame(c echo.Context, nav, title string, crumbs ...Crumb) Frame {
	v, _ := ViewerOf(c)
	banner, _ := c.Get(bannerKey).(string)
	return Frame{
		Title: title, Nav: nav, Crumbs: crumbs, Viewer: v, Place: PlaceOf(c), Path: c.Request().URL.RequestURI(), Flash: takeFlash(c), Banner: banner,
	}
}
