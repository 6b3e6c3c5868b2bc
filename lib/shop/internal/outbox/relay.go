// Package outbox carries events from a table to Kafka.
//
// An order and its event are stored in one transaction. The relay sends the event afterwards, and again until
// Kafka has it: nothing is lost, whatever dies in between. Kafka may get an event twice, so consumers look at
// the order's id. https://microservices.io/patterns/data/transactional-outbox.html
package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"stackbook.dev/shop/internal/database"
	"stackbook.dev/shop/internal/events"
)

var published = promauto.NewCounter(prometheus.CounterOpts{
	Name: "shop_events_published_total", Help: "Events of the outbox that Kafka has acknowledged.",
})

// Add writes an event into the outbox, in the transaction of the change that it is about.
func Add(ctx context.Context, tx *sql.Tx, m events.Message) error {
	headers, err := json.Marshal(m.Headers)
	if err != nil {
		return fmt.Errorf("headers of order %s: %w", m.Order, err)
	}
	const insert = "INSERT INTO outbox (order_id, payload, headers) VALUES (?, ?, ?)"
	if _, err := tx.ExecContext(ctx, insert, m.Order, string(m.Payload), string(headers)); err != nil {
		return fmt.Errorf("write order %s into the outbox: %w", m.Order, err)
	}
	return nil
}

// Relay sends what is in the outbox. Several relays share one: each takes rows that no other has.
type Relay struct {
	DB    *sql.DB
	Send  func(ctx context.Context, messages []events.Message) error
	Log   *slog.Logger
	Every time.Duration
	Batch int
}

// Run sends until ctx ends.
func (r *Relay) Run(ctx context.Context) {
	for ctx.Err() == nil {
		sent, err := r.Once(ctx)
		if err != nil && ctx.Err() == nil {
			r.Log.Warn("events wait in the outbox", "error", err.Error())
		}
		if sent == r.Batch {
			continue // there may be more
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.Every):
		}
	}
}

// Once sends one batch; it returns how many events that were.
func (r *Relay) Once(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	sent := 0
	// Read committed: no gap is locked, so orders are stored while Kafka is slow.
	err := database.Transact(ctx, r.DB, sql.LevelReadCommitted, func(tx *sql.Tx) error {
		messages, numbers, err := waiting(ctx, tx, r.Batch)
		if err != nil || len(messages) == 0 {
			return err
		}
		if err := r.Send(ctx, messages); err != nil {
			return err
		}
		sent = len(messages)
		update := "UPDATE outbox SET published = UTC_TIMESTAMP(6) WHERE sequence IN (?" + strings.Repeat(", ?", sent-1) + ")"
		if _, err := tx.ExecContext(ctx, update, numbers...); err != nil {
			return fmt.Errorf("note %d sent events: %w", sent, err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	published.Add(float64(sent))
	return sent, nil
}

func waiting(ctx context.Context, tx *sql.Tx, most int) (messages []events.Message, numbers []any, err error) {
	const oldest = "SELECT sequence, order_id, payload, headers FROM outbox WHERE published IS NULL ORDER BY sequence LIMIT ? FOR UPDATE SKIP LOCKED"
	rows, err := tx.QueryContext(ctx, oldest, most)
	if err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var number int64
		var m events.Message
		var headers []byte
		if err := rows.Scan(&number, &m.Order, &m.Payload, &headers); err != nil {
			return nil, nil, fmt.Errorf("read the outbox: %w", err)
		}
		if err := json.Unmarshal(headers, &m.Headers); err != nil {
			return nil, nil, fmt.Errorf("headers of order %s: %w", m.Order, err)
		}
		messages, numbers = append(messages, m), append(numbers, number)
	}
	return messages, numbers, rows.Err()
}
