// Package api serves the shop by HTTP: its operations, their description in OpenAPI, and a page to try them.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"stackbook.dev/shop/internal/catalogue"
	"stackbook.dev/shop/internal/order"
	"stackbook.dev/shop/internal/service"
)

// Catalogue answers with books, and how it came by them.
type Catalogue interface {
	Books(ctx context.Context) ([]catalogue.Book, string, error)
	Book(ctx context.Context, id string) (catalogue.Book, string, error)
}

// Orders takes orders.
type Orders interface {
	Place(ctx context.Context, id string, draft order.Draft) (order.Order, bool, error)
	Find(ctx context.Context, id string) (order.Order, error)
}

// API has the handlers.
type API struct {
	Catalogue Catalogue
	Orders    Orders
	Health    *service.Health
	Log       *slog.Logger
}

// Handler returns all routes.
func (a *API) Handler() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	routes := gin.New()
	routes.Use(gin.Recovery())
	routes.GET("/healthz", gin.WrapF(a.Health.Alive))
	routes.GET("/readyz", gin.WrapF(a.Health.Ready))
	routes.GET("/metrics", gin.WrapH(promhttp.Handler()))
	documents(routes)

	shop := routes.Group("/", a.observe)
	shop.GET("/books", a.books)
	shop.GET("/books/:id", a.book)
	shop.POST("/orders", a.create)
	shop.PUT("/orders/:id", a.place)
	shop.GET("/orders/:id", a.order)
	return routes
}

// cacheHeader says how the answer came about: hit, miss, or away.
const cacheHeader = "X-Cache"

func (a *API) books(c *gin.Context) {
	books, how, err := a.Catalogue.Books(c.Request.Context())
	if err != nil {
		a.fail(c, err)
		return
	}
	c.Header(cacheHeader, how)
	c.JSON(http.StatusOK, books)
}

func (a *API) book(c *gin.Context) {
	book, how, err := a.Catalogue.Book(c.Request.Context(), c.Param("id"))
	if err != nil {
		a.fail(c, err)
		return
	}
	c.Header(cacheHeader, how)
	c.JSON(http.StatusOK, book)
}

func (a *API) create(c *gin.Context) { a.placed(c, order.NewID()) }

func (a *API) place(c *gin.Context) {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		c.JSON(http.StatusBadRequest, problem{"the order's id is not a UUID"})
		return
	}
	a.placed(c, id.String())
}

func (a *API) placed(c *gin.Context, id string) {
	var draft order.Draft
	if err := c.ShouldBindJSON(&draft); err != nil {
		c.JSON(http.StatusBadRequest, problem{err.Error()})
		return
	}
	placed, fresh, err := a.Orders.Place(c.Request.Context(), id, draft)
	if err != nil {
		a.fail(c, err)
		return
	}
	c.Header("Location", "/orders/"+id)
	if fresh {
		c.JSON(http.StatusCreated, placed)
		return
	}
	c.JSON(http.StatusOK, placed)
}

func (a *API) order(c *gin.Context) {
	found, err := a.Orders.Find(c.Request.Context(), c.Param("id"))
	if err != nil {
		a.fail(c, err)
		return
	}
	c.JSON(http.StatusOK, found)
}

type problem struct {
	Error string `json:"error"`
}

// fail answers with the status of an error; what went wrong inside stays in the log.
func (a *API) fail(c *gin.Context, err error) {
	statuses := []struct {
		err    error
		status int
	}{
		{catalogue.ErrUnknown, http.StatusNotFound}, {order.ErrUnknown, http.StatusNotFound},
		{order.ErrConflict, http.StatusConflict}, {order.ErrSoldOut, http.StatusConflict},
	}
	for _, known := range statuses {
		if errors.Is(err, known.err) {
			c.JSON(known.status, problem{known.err.Error()})
			return
		}
	}
	_ = c.Error(err)
	c.Header("Retry-After", "1")
	c.JSON(http.StatusServiceUnavailable, problem{"something that the shop needs does not answer; the same request may be sent again"})
}
