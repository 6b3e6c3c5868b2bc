// Package order places orders: it asks the catalogue for the price and stock for the books, and stores the
// order together with the event that tells of it.
package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"stackbook.dev/shop/internal/catalogue"
	"stackbook.dev/shop/internal/events"
	"stackbook.dev/shop/internal/trace"
)

// Draft is what a customer asks for.
type Draft struct {
	Customer string `json:"customer" binding:"required,max=64"`
	Book     string `json:"book" binding:"required,max=32"`
	Quantity int    `json:"quantity" binding:"required,min=1,max=100"`
}

// Order is a draft that was accepted.
type Order struct {
	ID string `json:"id"`
	Draft
	TotalCents int64     `json:"total_cents"`
	TraceID    string    `json:"trace_id"`
	Placed     time.Time `json:"placed"`
}

var (
	// ErrUnknown means that there is no such order.
	ErrUnknown = errors.New("no such order")
	// ErrConflict means that the id belongs to another order.
	ErrConflict = errors.New("this id belongs to another order")
	// ErrSoldOut means that there are not enough books.
	ErrSoldOut = errors.New("sold out")
	// ErrStockAway means that stock does not answer. The same request may be sent again.
	ErrStockAway = errors.New("stock does not answer")
)

// Books is what is needed of the catalogue.
type Books interface {
	Book(ctx context.Context, id string) (catalogue.Book, string, error)
}

// Stock keeps books for an order; the same order once. It returns ErrSoldOut or ErrStockAway.
type Stock interface {
	Reserve(ctx context.Context, order string, draft Draft) error
}

// Store keeps orders with their events.
type Store interface {
	Find(ctx context.Context, id string) (Order, error)
	// Add returns ErrConflict if the id is taken.
	Add(ctx context.Context, order Order, event events.Message) error
}

// Desk takes orders.
type Desk struct {
	Books  Books
	Stock  Stock
	Store  Store
	Schema int // the version of the events
	Now    func() time.Time
}

// Place places the order with this id. The same request again returns the same order, and false: a client that
// got no answer asks again without ordering twice.
func (d *Desk) Place(ctx context.Context, id string, draft Draft) (Order, bool, error) {
	if found, err := d.same(ctx, id, draft); !errors.Is(err, ErrUnknown) {
		return found, false, err
	}
	book, _, err := d.Books.Book(ctx, draft.Book)
	if err != nil {
		return Order{}, false, err
	}
	if err := d.Stock.Reserve(ctx, id, draft); err != nil {
		return Order{}, false, err
	}
	headers := trace.From(ctx)
	order := Order{
		ID: id, Draft: draft, TotalCents: int64(draft.Quantity) * book.PriceCents,
		TraceID: headers.ID(), Placed: d.Now().UTC().Truncate(time.Microsecond), // as the database keeps it
	}
	payload, err := event(order).Encode(d.Schema)
	if err != nil {
		return Order{}, false, err
	}
	err = d.Store.Add(ctx, order, events.Message{Order: id, Payload: payload, Headers: headers})
	if errors.Is(err, ErrConflict) { // the same request came twice at the same time
		found, err := d.same(ctx, id, draft)
		return found, false, err
	}
	if err != nil {
		return Order{}, false, err
	}
	return order, true, nil
}

// Find returns an order, or ErrUnknown.
func (d *Desk) Find(ctx context.Context, id string) (Order, error) { return d.Store.Find(ctx, id) }

// NewID returns an id for an order of a client that has none.
func NewID() string { return uuid.NewString() }

func (d *Desk) same(ctx context.Context, id string, draft Draft) (Order, error) {
	found, err := d.Store.Find(ctx, id)
	if err == nil && found.Draft != draft {
		return Order{}, fmt.Errorf("%w: %s", ErrConflict, id)
	}
	return found, err
}

func event(o Order) events.OrderPlaced {
	return events.OrderPlaced{
		Order: o.ID, Customer: o.Customer, Book: o.Book, Quantity: o.Quantity,
		TotalCents: o.TotalCents, Currency: "EUR", Placed: o.Placed,
	}
}
