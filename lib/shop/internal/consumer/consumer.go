// Package consumer is what the programs share that handle order-placed.
package consumer

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"stackbook.dev/shop/internal/database"
	"stackbook.dev/shop/internal/events"
	"stackbook.dev/shop/internal/service"
)

// Effect is what a program does about an event, in the transaction that notes it.
type Effect func(ctx context.Context, tx *sql.Tx, event events.OrderPlaced) error

// Run is a program that has this effect once for each order; its Kafka group has the program's name.
func Run(ctx context.Context, log *slog.Logger, name string, migrations fs.FS, effect Effect) error {
	var s service.Settings
	metrics, group, idempotent := s.Text("METRICS_ADDRESS", ":9090"), s.Text("KAFKA_GROUP", name), s.Switch("IDEMPOTENT", true)
	db, err := database.Open(&s)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := s.Check(); err != nil {
		return err
	}
	err = service.Retry(ctx, log, "prepare the database", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return database.Migrate(ctx, db, migrations)
	})
	if err != nil {
		return err
	}
	handle := func(ctx context.Context, event events.OrderPlaced) (bool, error) {
		return events.Once(ctx, db, event.Order, idempotent, func(tx *sql.Tx) error { return effect(ctx, tx, event) })
	}
	health := &service.Health{}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return health.Serve(ctx, metrics, health.Mux(), 0) })
	work.Go(func() error { return events.Consume(ctx, &s, group, log, handle) })
	log.Info("consuming", "topic", events.Topic, "group", group, "idempotent", idempotent)
	if err := work.Wait(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
