// Command orders is the shop's front: it serves the catalogue and takes orders by HTTP.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"stackbook.dev/shop/internal/api"
	"stackbook.dev/shop/internal/catalogue"
	"stackbook.dev/shop/internal/database"
	"stackbook.dev/shop/internal/events"
	"stackbook.dev/shop/internal/order"
	"stackbook.dev/shop/internal/outbox"
	"stackbook.dev/shop/internal/service"
	"stackbook.dev/shop/internal/stock"
)

func main() { service.Main("orders", run) }

func run(ctx context.Context, log *slog.Logger) error {
	var s service.Settings
	address, drain := s.Text("ADDRESS", ":8080"), s.Seconds("DRAIN_SECONDS", 5)
	expiry, schema := s.Seconds("CACHE_SECONDS", 30), s.Number("EVENT_SCHEMA", events.Schema, 1)
	useOutbox, traced := s.Switch("OUTBOX", true), s.Switch("KAFKA_TRACE_HEADERS", true)
	stockAddress, redis := s.Text("STOCK_ADDRESS", "stock:50051"), catalogue.NewRedis(&s)
	db, err := database.Open(&s)
	if err != nil {
		return err
	}
	defer db.Close()
	kafka, err := events.Connect(&s, producer(useOutbox)...)
	if err != nil {
		return err
	}
	defer kafka.Close()
	if err := s.Check(); err != nil {
		return err
	}
	send := func(ctx context.Context, messages []events.Message) error {
		if !traced { // the lab's trial of a producer that forgets them
			for i := range messages {
				messages[i].Headers = nil
			}
		}
		return events.Send(ctx, kafka, messages)
	}
	shelf, closed, err := stock.Connect(stockAddress)
	if err != nil {
		return err
	}
	defer func() { _ = closed() }()

	table := &order.Table{DB: db, Log: log}
	if !useOutbox {
		table.Direct = send
	}
	var origin *catalogue.Table
	err = service.Retry(ctx, log, "prepare the database", func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err = database.Migrate(ctx, db, catalogue.Migrations); err != nil {
			return err
		}
		if origin, err = catalogue.NewTable(ctx, db); err != nil {
			return err
		}
		return table.Prepare(ctx)
	})
	if err != nil {
		return err
	}
	cache := &catalogue.Cache{Origin: origin, Copies: redis, Expiry: expiry, Log: log}
	desk := &order.Desk{Books: cache, Stock: shelf, Store: table, Schema: schema, Now: time.Now}
	health := &service.Health{}
	shop := &api.API{Catalogue: cache, Orders: desk, Health: health, Log: log}
	relay := &outbox.Relay{DB: db, Send: send, Log: log, Every: 200 * time.Millisecond, Batch: 100}

	work, ctx := errgroup.WithContext(ctx)
	relaying, stopRelay := context.WithCancel(context.WithoutCancel(ctx)) // it sends what the last requests store
	work.Go(func() error {
		defer stopRelay()
		return health.Serve(ctx, address, shop.Handler(), drain)
	})
	work.Go(func() error {
		err := service.Retry(relaying, log, "create the topic", func(ctx context.Context) error {
			return events.EnsureTopic(ctx, kafka, log)
		})
		if err == nil {
			relay.Run(relaying)
		}
		return nil // without Kafka the shop sells, and its events wait
	})
	log.Info("listening", "address", address, "outbox", useOutbox)
	if err := work.Wait(); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	return nil
}

// producer gives up at once where nothing could repeat a failed write anyway.
func producer(useOutbox bool) []kgo.Opt {
	if useOutbox {
		return nil
	}
	return []kgo.Opt{kgo.DisableIdempotentWrite()}
}
