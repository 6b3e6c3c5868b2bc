// Package service is what the shop's programs share: settings, JSON logs, health, metrics, and a stop
// that loses no request.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Main runs a program until it ends or is told to stop; it writes JSON lines.
func Main(name string, run func(ctx context.Context, log *slog.Logger) error) {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil)).With("app", name, "pod", os.Getenv("HOSTNAME"))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, log); err != nil {
		log.Error("failed", "error", err.Error())
		os.Exit(1)
	}
	log.Info("stopped")
}

// Health answers Kubernetes' probes. A program is alive while it answers, and ready until it is told to stop.
// It stays ready while its database is away: to take every pod out of the Service would help nobody.
type Health struct{ stopping atomic.Bool }

// Alive is the handler of /healthz.
func (h *Health) Alive(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// Ready is the handler of /readyz.
func (h *Health) Ready(w http.ResponseWriter, _ *http.Request) {
	if h.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// Mux serves health and metrics, for programs that serve nothing else by HTTP.
func (h *Health) Mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", h.Alive)
	mux.HandleFunc("/readyz", h.Ready)
	mux.Handle("/metrics", promhttp.Handler())
	return mux
}

// Serve serves until ctx ends. Then it goes on for drain, until every proxy knows that this pod leaves,
// and lets the requests end that still run.
func (h *Health) Serve(ctx context.Context, address string, handler http.Handler, drain time.Duration) error {
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", address, err)
	case <-ctx.Done():
	}
	h.stopping.Store(true)
	time.Sleep(drain)
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("stop serving %s: %w", address, err)
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", address, err)
	}
	return nil
}

// Retry calls work until it succeeds or ctx ends, with growing pauses; it logs each failure.
func Retry(ctx context.Context, log *slog.Logger, what string, work func(ctx context.Context) error) error {
	pause := 100 * time.Millisecond
	for {
		err := work(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		log.Warn("trying again", "what", what, "error", err.Error(), "pause", pause.String())
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}
