// Package service is what every HTTP service of the lab shares: who it is, one
// log line per request, and a stop that loses no request.
package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// Identity names the running copy of a service.
type Identity struct{ App, Version, Pod string }

// Whoami reads SERVICE_VERSION and the pod's name, which Kubernetes puts into HOSTNAME.
func Whoami(app string) Identity {
	pod := os.Getenv("HOSTNAME")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	return Identity{App: app, Version: Env("SERVICE_VERSION", "v1"), Pod: pod}
}

func (id Identity) String() string { return id.App + "/" + id.Version + " " + id.Pod }

// ServedBy is the response header that lists every service that took part, the nearest first.
const ServedBy = "X-Served-By"

// Server serves a handler and, when told to stop, goes on serving for Drain:
// kube-proxy and the sidecars need that long to learn that this pod is leaving.
type Server struct {
	Identity Identity
	Handler  http.Handler
	Drain    time.Duration
	Grace    time.Duration // for the requests still running after Drain
	Log      io.Writer     // JSON lines; nil means stdout
	stopping atomic.Bool
}

// DrainPeriod reads DRAIN_SECONDS, five seconds by default.
func DrainPeriod() time.Duration {
	period, err := time.ParseDuration(Env("DRAIN_SECONDS", "5") + "s")
	if err != nil || period < 0 {
		return 5 * time.Second
	}
	return period
}

// Run listens on address until SIGTERM or SIGINT, then stops without losing a request.
func (s *Server) Run(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return s.Serve(ctx, listener)
}

// Serve serves until ctx ends, drains, and returns nil after a clean stop.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	log := s.logger()
	server := &http.Server{Handler: s.Observe(s.Handler), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("listening", "address", listener.Addr().String())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	log.Info("draining", "seconds", s.Drain.Seconds())
	time.Sleep(s.Drain)

	grace, cancel := context.WithTimeout(context.Background(), max(s.Grace, 5*time.Second))
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Info("stopped")
	return nil
}

func (s *Server) logger() *slog.Logger {
	out := s.Log
	if out == nil {
		out = os.Stdout
	}
	id := s.Identity
	return slog.New(slog.NewJSONHandler(out, nil)).With("app", id.App, "version", id.Version, "pod", id.Pod)
}

// Observe names the server in every response and writes one line per request.
func (s *Server) Observe(next http.Handler) http.Handler {
	log := s.logger()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		w.Header().Set(ServedBy, s.Identity.String())
		if s.stopping.Load() {
			w.Header().Set("Connection", "close") // the client's next request opens a connection elsewhere
		}
		seen := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)
		log.Info("request",
			"method", r.Method, "path", r.URL.Path, "status", seen.status, "bytes", seen.bytes,
			"ms", float64(time.Since(started).Microseconds())/1000,
			"request_id", r.Header.Get("x-request-id"), "traceparent", r.Header.Get("traceparent"),
			"b3_traceid", r.Header.Get("x-b3-traceid"), "end_user", r.Header.Get("end-user"))
	})
}

type recorder struct {
	http.ResponseWriter
	status, bytes int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(data []byte) (int, error) {
	n, err := r.ResponseWriter.Write(data)
	r.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Env reads a variable that may be unset or empty.
func Env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
