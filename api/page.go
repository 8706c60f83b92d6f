package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// Paging is embedded in the input of a list.
type Paging struct {
	Limit int    `query:"limit" min:"1" max:"100" default:"20" doc:"How many items at most."`
	Page  string `query:"page" maxlen:"1024" doc:"The next_page of the previous answer. It belongs to the same filters and order."`

	place place
}

func (p *Paging) open(c *call, query url.Values) error {
	return p.place.open(c, query, p.Limit, p.Page)
}

// LongPaging is Paging for lists of many small items.
type LongPaging struct {
	Limit int    `query:"limit" min:"1" max:"1000" default:"100" doc:"How many items at most."`
	Page  string `query:"page" maxlen:"1024" doc:"The next_page of the previous answer. It belongs to the same filters and order."`

	place place
}

func (p *LongPaging) open(c *call, query url.Values) error {
	return p.place.open(c, query, p.Limit, p.Page)
}

// pager is what both are; the binder opens it.
type pager interface {
	open(c *call, query url.Values) error
}

// place is where in a list a request begins.
type place struct {
	limit int
	list  string
	print string
	// position is where the previous page ended, in the list's own terms; empty for the first page.
	position string
}

// Page is one page of a list.
type Page[T any] struct {
	Data []T `json:"data"`
	// NextPage is null on the last page.
	NextPage *string `json:"next_page"`
}

// cursor is what a page token holds. It needs no signature: a list is bound to the caller's organisation whatever the position says.
type cursor struct {
	List     string `json:"l"`
	Print    string `json:"f"`
	Position string `json:"p"`
}

// open reads the page parameter and refuses one that was made for another list, other filters or another order.
func (p *place) open(c *call, query url.Values, limit int, page string) error {
	p.limit, p.list, p.print = limit, c.route.ID, filtersPrint(c, query)
	if page == "" {
		return nil
	}
	bad := fault.New(fault.Invalid, slugPage, "This page cursor does not belong to this list with these filters. Begin again without page.")
	bad.Fields = []fault.Field{{Pointer: "query/page", Code: slugPage, Message: bad.Message}}
	raw, err := base64.RawURLEncoding.DecodeString(page)
	if err != nil {
		return bad
	}
	var cur cursor
	if json.Unmarshal(raw, &cur) != nil || cur.List != p.list || cur.Print != p.print || cur.Position == "" {
		return bad
	}
	p.position = cur.Position
	return nil
}

// fetch is how many items to ask a domain for: one more than are shown tells whether there is a next page.
func (p *place) fetch() int { return p.limit + 1 }

// seq reads the position as an event's number; 0 begins at the start.
func (p *place) seq() (int64, error) {
	if p.position == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(p.position, 10, 64)
	if err != nil || n < 1 {
		return 0, invalidPosition()
	}
	return n, nil
}

// positionID reads the position as an id; "" begins at the start.
func positionID[T id.Kind](p place) (T, error) {
	if p.position == "" {
		return "", nil
	}
	parsed, err := id.Parse[T](p.position)
	if err != nil {
		return "", invalidPosition()
	}
	return parsed, nil
}

// filtersPrint is over everything that decides which items a list has and in which order: path, project, query without page and limit.
func filtersPrint(c *call, query url.Values) string {
	keys := make([]string, 0, len(query))
	for k := range query {
		if k != "page" && k != "limit" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	h := sha256.New()
	for _, part := range append([]string{c.r.URL.Path, string(c.who.Org), string(c.who.Project)}, keys...) {
		h.Write([]byte(part))
		h.Write([]byte{0})
		for _, v := range query[part] {
			h.Write([]byte(v))
			h.Write([]byte{1})
		}
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])
}

// pageOf cuts the extra item off and makes the cursor from the last item that is shown.
func pageOf[D, W any](p place, items []D, position func(D) string, show func(D) W) Page[W] {
	out := Page[W]{Data: []W{}}
	if len(items) > p.limit {
		items = items[:p.limit]
		out.NextPage = p.token(position(items[len(items)-1]))
	}
	for _, item := range items {
		out.Data = append(out.Data, show(item))
	}
	return out
}

// token is the cursor of the page after a position.
func (p *place) token(position string) *string {
	// Marshalling three strings can't fail.
	raw, _ := json.Marshal(cursor{List: p.list, Print: p.print, Position: position})
	token := base64.RawURLEncoding.EncodeToString(raw)
	return &token
}

func invalidPosition() error {
	return fault.New(fault.Invalid, slugPage, "This page cursor is damaged. Begin again without page.")
}
