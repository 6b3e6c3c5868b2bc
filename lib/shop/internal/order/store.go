package order

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"stackbook.dev/shop/internal/database"
	"stackbook.dev/shop/internal/events"
	"stackbook.dev/shop/internal/outbox"
)

// Table keeps orders in MariaDB, and their events in the outbox beside them.
//
// With Direct set, it sends each event itself, after the commit. That is the usual mistake, which the lab uses
// to show what it loses: a program or broker that dies between the two leaves an order that nobody hears of.
type Table struct {
	DB     *sql.DB
	Log    *slog.Logger
	Direct func(ctx context.Context, messages []events.Message) error
	find   *sql.Stmt
	insert *sql.Stmt
}

// Prepare prepares the statements.
func (t *Table) Prepare(ctx context.Context) (err error) {
	const columns = "id, customer, book, quantity, total_cents, trace_id, placed"
	if t.find, err = t.DB.PrepareContext(ctx, "SELECT "+columns+" FROM orders WHERE id = ?"); err != nil {
		return fmt.Errorf("prepare the search of an order: %w", err)
	}
	insert := "INSERT INTO orders (" + columns + ") VALUES (?, ?, ?, ?, ?, ?, ?)"
	if t.insert, err = t.DB.PrepareContext(ctx, insert); err != nil {
		return fmt.Errorf("prepare an order: %w", err)
	}
	return nil
}

// Find returns an order, or ErrUnknown.
func (t *Table) Find(ctx context.Context, id string) (Order, error) {
	var o Order
	row := t.find.QueryRowContext(ctx, id)
	err := row.Scan(&o.ID, &o.Customer, &o.Book, &o.Quantity, &o.TotalCents, &o.TraceID, &o.Placed)
	if errors.Is(err, sql.ErrNoRows) {
		return o, ErrUnknown
	}
	if err != nil {
		return o, fmt.Errorf("read order %s: %w", id, err)
	}
	return o, nil
}

// Add stores an order and its event in one transaction; it returns ErrConflict if the id is taken.
func (t *Table) Add(ctx context.Context, o Order, event events.Message) error {
	err := database.Transact(ctx, t.DB, sql.LevelReadCommitted, func(tx *sql.Tx) error {
		insert := tx.StmtContext(ctx, t.insert)
		_, err := insert.ExecContext(ctx, o.ID, o.Customer, o.Book, o.Quantity, o.TotalCents, o.TraceID, o.Placed)
		if database.Duplicate(err) {
			return ErrConflict
		}
		if err != nil {
			return fmt.Errorf("store order %s: %w", o.ID, err)
		}
		if t.Direct != nil {
			return nil
		}
		return outbox.Add(ctx, tx, event)
	})
	if err == nil && t.Direct != nil {
		t.send(ctx, event)
	}
	return err
}

func (t *Table) send(ctx context.Context, event events.Message) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := t.Direct(ctx, []events.Message{event}); err != nil {
		t.Log.Error("the order is stored, its event is lost", "order", event.Order, "error", err.Error())
	}
}
