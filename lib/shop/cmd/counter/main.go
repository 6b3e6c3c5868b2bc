// Command counter counts the orders of each day.
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
)

//go:embed migrations/*.sql
var migrations embed.FS

func main() {
	service.Main("counter", func(ctx context.Context, log *slog.Logger) error {
		return consumer.Run(ctx, log, "counter", migrations, count)
	})
}

func count(ctx context.Context, tx *sql.Tx, event events.OrderPlaced) error {
	const add = "INSERT INTO days (day, orders, total_cents) VALUES (?, 1, ?) ON DUPLICATE KEY UPDATE orders = orders + 1, total_cents = total_cents + VALUES(total_cents)"
	if _, err := tx.ExecContext(ctx, add, event.Placed.UTC().Format("2006-01-02"), event.TotalCents); err != nil {
		return fmt.Errorf("count the order: %w", err)
	}
	return nil
}
