package order

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/go-sql-driver/mysql"

	"stackbook.dev/shop/internal/catalogue"
	"stackbook.dev/shop/internal/events"
	"stackbook.dev/shop/internal/trace"
)

type books struct{}

func (books) Book(_ context.Context, id string) (catalogue.Book, string, error) {
	if id != "hamlet" {
		return catalogue.Book{}, "", catalogue.ErrUnknown
	}
	return catalogue.Book{ID: id, PriceCents: 990}, catalogue.Hit, nil
}

type stock struct {
	err      error
	reserved int
}

func (s *stock) Reserve(context.Context, string, Draft) error { s.reserved++; return s.err }

type store struct {
	orders map[string]Order
	events []events.Message
	race   *Order // stored by somebody else just before Add
}

func (s *store) Find(_ context.Context, id string) (Order, error) {
	found, ok := s.orders[id]
	if !ok {
		return Order{}, ErrUnknown
	}
	return found, nil
}

func (s *store) Add(_ context.Context, o Order, event events.Message) error {
	if s.race != nil {
		s.orders[o.ID] = *s.race
		return ErrConflict
	}
	s.orders[o.ID], s.events = o, append(s.events, event)
	return nil
}

var (
	now   = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	draft = Draft{Customer: "Ada", Book: "hamlet", Quantity: 2}
	ctx   = trace.With(context.Background(), trace.Headers{"x-b3-traceid": "463ac35c9f6413ad"})
)

func desk() (*Desk, *stock, *store) {
	shelf, table := &stock{}, &store{orders: map[string]Order{}}
	return &Desk{Books: books{}, Stock: shelf, Store: table, Schema: 2, Now: func() time.Time { return now }}, shelf, table
}

func TestAnOrderIsStoredWithItsEvent(t *testing.T) {
	desk, _, table := desk()
	placed, fresh, err := desk.Place(ctx, "o-1", draft)
	if err != nil || !fresh || placed.TotalCents != 1980 || placed.TraceID != "463ac35c9f6413ad" {
		t.Fatalf("%+v, %v, %v", placed, fresh, err)
	}
	if len(table.events) != 1 || table.events[0].Headers["x-b3-traceid"] != "463ac35c9f6413ad" {
		t.Fatalf("events %+v", table.events)
	}
	event, err := events.Decode(table.events[0].Payload)
	if err != nil || event.Order != "o-1" || event.TotalCents != 1980 || event.Currency != "EUR" {
		t.Errorf("event %+v, %v", event, err)
	}
}

func TestTheSameRequestAgainIsTheSameOrder(t *testing.T) {
	desk, shelf, table := desk()
	first, _, _ := desk.Place(ctx, "o-1", draft)
	second, fresh, err := desk.Place(ctx, "o-1", draft)
	if err != nil || fresh || second != first || len(table.events) != 1 || shelf.reserved != 1 {
		t.Errorf("%+v, %v, %v; %d events, %d reservations", second, fresh, err, len(table.events), shelf.reserved)
	}
	other := draft
	other.Quantity = 3
	if _, _, err := desk.Place(ctx, "o-1", other); !errors.Is(err, ErrConflict) {
		t.Errorf("another order with this id: %v", err)
	}
}

func TestTwoEqualRequestsAtTheSameTimeAreOneOrder(t *testing.T) {
	desk, _, table := desk()
	table.race = &Order{ID: "o-1", Draft: draft, TotalCents: 1980}
	found, fresh, err := desk.Place(ctx, "o-1", draft)
	if err != nil || fresh || found != *table.race {
		t.Errorf("%+v, %v, %v", found, fresh, err)
	}
}

func TestWhatCannotBeSoldIsNotStored(t *testing.T) {
	desk, shelf, table := desk()
	if _, _, err := desk.Place(ctx, "o-1", Draft{"Ada", "nothing", 1}); !errors.Is(err, catalogue.ErrUnknown) {
		t.Errorf("unknown book: %v", err)
	}
	shelf.err = ErrSoldOut
	if _, _, err := desk.Place(ctx, "o-1", draft); !errors.Is(err, ErrSoldOut) {
		t.Errorf("sold out: %v", err)
	}
	if len(table.orders) > 0 {
		t.Errorf("stored: %v", table.orders)
	}
}

func table(t *testing.T) (*Table, sqlmock.Sqlmock) {
	t.Helper()
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db.Close()
		if err := mock.ExpectationsWereMet(); err != nil {
			t.Error(err)
		}
	})
	mock.ExpectPrepare("SELECT")
	mock.ExpectPrepare("INSERT INTO orders")
	found := &Table{DB: db, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))}
	if err := found.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	return found, mock
}

func TestOrderAndEventAreOneTransaction(t *testing.T) {
	table, mock := table(t)
	mock.ExpectBegin()
	mock.ExpectExec("INSERT INTO orders").WillReturnResult(sqlmock.NewResult(0, 1))
	full := errors.New("disk full")
	mock.ExpectExec("INSERT INTO outbox").WillReturnError(full)
	mock.ExpectRollback()
	if err := table.Add(ctx, Order{ID: "o-1"}, events.Message{Order: "o-1"}); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}

func TestAnIDThatIsTakenIsAConflict(t *testing.T) {
	table, mock := table(t)
	mock.ExpectBegin()
	mock.ExpectExec("INSERT INTO orders").WillReturnError(&mysql.MySQLError{Number: 1062})
	mock.ExpectRollback()
	if err := table.Add(ctx, Order{ID: "o-1"}, events.Message{Order: "o-1"}); !errors.Is(err, ErrConflict) {
		t.Errorf("error %v", err)
	}
}

func TestWithoutTheOutboxALostEventIsNoError(t *testing.T) {
	table, mock := table(t)
	table.Direct = func(context.Context, []events.Message) error { return errors.New("no broker") }
	mock.ExpectBegin()
	mock.ExpectExec("INSERT INTO orders").WillReturnResult(sqlmock.NewResult(0, 1))
	mock.ExpectCommit()
	if err := table.Add(ctx, Order{ID: "o-1"}, events.Message{Order: "o-1"}); err != nil {
		t.Errorf("error %v: the customer was told that the order failed", err)
	}
}
