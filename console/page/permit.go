package page

import (
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

// Need lets a request pass only when the viewer's role has the permission. Nothing is hidden by it that another member may not know of:
// the project is the viewer's own, so the refusal says so instead of pretending that the page does not exist.
func Need(permission tenants.Permission) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := Require(c, permission); err != nil {
				return err
			}
			return next(c)
		}
	}
}

// Require is Need inside a handler, for an address that shows one of several things.
func Require(c echo.Context, permission tenants.Permission) error {
	if tenants.Allowed(principal.From(c.Request().Context()), permission) {
		return nil
	}
	return fault.Newf(fault.Forbidden, "permission_denied", "Your role is %s, and this needs the permission %s. An owner or an admin of the organisation can change your role.", PlaceOf(c).Role, permission)
}
