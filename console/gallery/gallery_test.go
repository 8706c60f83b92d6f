package gallery_test

import (
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/gallery"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/static"
	"ambit.dev/ambit/test/browser"
)

func TestComponentsHoldInEveryLook(t *testing.T) {
	e := echo.New()
	e.Use(page.Secure)
	e.GET("/static/*", echo.WrapHandler(static.Handler()))
	e.GET("/components", func(c echo.Context) error {
		return page.Render(c, 200, gallery.Page(page.NewFrame(c, "", "Components")))
	})
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	browser.Start(t).Judge(t, "components", server.URL+"/components")
}
