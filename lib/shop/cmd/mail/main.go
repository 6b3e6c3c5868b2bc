// Command mail tells each customer about each order, once. A row in its table stands for the mail: sending is
// then another program's work, as with any queue of mails.
package main

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"log/slog"

	"stackbook.dev/shop/internal/consumer"
	"stackbook.dev/shop/internal/events"
	"stackbook.dev/shop/internal/service"
	"stackbook.dev/shop/internal/trace"
)

//go:embed migrations/*.sql
var migrations embed.FS

func main() {
	service.Main("mail", func(ctx context.Context, log *slog.Logger) error {
		return consumer.Run(ctx, log, "mail", migrations, send)
	})
}

func send(ctx context.Context, tx *sql.Tx, event events.OrderPlaced) error {
	const insert = "INSERT INTO mails (order_id, customer, subject, trace_id) VALUES (?, ?, ?, ?)"
	subject := fmt.Sprintf("Your order of %d × %s: %s %.2f", event.Quantity, event.Book, event.Currency, float64(event.TotalCents)/100)
	if _, err := tx.ExecContext(ctx, insert, event.Order, event.Customer, subject, trace.From(ctx).ID()); err != nil {
		return fmt.Errorf("queue the mail: %w", err)
	}
	return nil
}
