// Command stock answers by gRPC whether there are enough books for an order, and keeps them for it.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"stackbook.dev/shop/internal/database"
	"stackbook.dev/shop/internal/service"
	"stackbook.dev/shop/internal/stock"
	"stackbook.dev/shop/internal/stockpb"
	"stackbook.dev/shop/internal/trace"
)

func main() { service.Main("stock", run) }

func run(ctx context.Context, log *slog.Logger) error {
	var s service.Settings
	address, metrics, drain := s.Text("ADDRESS", ":50051"), s.Text("METRICS_ADDRESS", ":9090"), s.Seconds("DRAIN_SECONDS", 5)
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
		return database.Migrate(ctx, db, stock.Migrations)
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server, state := grpc.NewServer(grpc.UnaryInterceptor(trace.UnaryServer)), health.NewServer()
	stockpb.RegisterStockServiceServer(server, &stock.Server{DB: db, Log: log})
	healthpb.RegisterHealthServer(server, state)
	reflection.Register(server)
	probes := &service.Health{}

	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return probes.Serve(ctx, metrics, probes.Mux(), drain) })
	work.Go(func() error { return server.Serve(listener) })
	work.Go(func() error {
		<-ctx.Done()
		state.Shutdown() // from now on NOT_SERVING
		time.Sleep(drain)
		hard := time.AfterFunc(10*time.Second, server.Stop)
		defer hard.Stop()
		server.GracefulStop()
		return nil
	})
	log.Info("listening", "address", address)
	if err := work.Wait(); err != nil {
		return fmt.Errorf("stock: %w", err)
	}
	return nil
}
