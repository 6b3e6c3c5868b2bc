// Command greeter-server is the guide's Greeter, extended: the four call kinds, health, reflection, TLS,
// status details, metadata, interceptors, and a stop that loses no call.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	pb "stackbook.dev/apps/internal/pb/helloworld"
	"stackbook.dev/apps/internal/service"
)

type options struct {
	address, rest     string
	cert, key, caFile string
	maxReceive        int
	quiet             bool
}

func main() {
	var o options
	flag.StringVar(&o.address, "address", ":"+service.Env("PORT", "50051"), "address to listen on (PORT); port 0 takes a free one")
	flag.StringVar(&o.rest, "rest-address", "", "also serve REST with JSON on this address, to compare the two")
	flag.StringVar(&o.cert, "tls-cert", "", "certificate: serve TLS")
	flag.StringVar(&o.key, "tls-key", "", "its private key")
	flag.StringVar(&o.caFile, "tls-client-ca", "", "ask clients for a certificate of this authority (mutual TLS)")
	flag.IntVar(&o.maxReceive, "max-receive", 4<<20, "largest message accepted, in bytes")
	flag.BoolVar(&o.quiet, "quiet", false, "no log line per call")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "greeter-server:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	id := service.Whoami("greeter")
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil)).With("app", id.App, "version", id.Version, "pod", id.Pod)
	listener, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	calls := &observer{id: id, log: log, quiet: o.quiet}
	settings := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(o.maxReceive),
		grpc.ChainUnaryInterceptor(calls.unary),
		grpc.ChainStreamInterceptor(calls.stream),
	}
	if o.cert != "" {
		secure, err := transportCredentials(o)
		if err != nil {
			return err
		}
		settings = append(settings, grpc.Creds(secure))
	}
	server := grpc.NewServer(settings...)
	state := health.NewServer()
	greeter := &greeter{id: id}
	pb.RegisterGreeterServer(server, greeter)
	healthpb.RegisterHealthServer(server, state)
	reflection.Register(server)
	state.SetServingStatus(pb.Greeter_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)

	attributes := []any{"address", listener.Addr().String()}
	if o.rest != "" {
		address, stop, err := serveREST(o.rest, greeter)
		if err != nil {
			return err
		}
		defer stop()
		attributes = append(attributes, "rest", address)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	go drain(ctx, server, state, log)
	log.Info("listening", attributes...)
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	log.Info("stopped")
	return nil
}

// drain says NOT_SERVING, goes on serving until every proxy and client may have noticed, then lets running calls end.
func drain(ctx context.Context, server *grpc.Server, state *health.Server, log *slog.Logger) {
	<-ctx.Done()
	period := service.DrainPeriod()
	log.Info("draining", "seconds", period.Seconds())
	state.Shutdown()
	time.Sleep(period)
	grace := time.AfterFunc(10*time.Second, server.Stop) // a stream may never end by itself
	defer grace.Stop()
	server.GracefulStop()
}

func transportCredentials(o options) (credentials.TransportCredentials, error) {
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if o.caFile != "" {
		pem, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", o.caFile)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return credentials.NewTLS(config), nil
}

func serveREST(address string, g *greeter) (string, func(), error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: rest(g), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), func() { _ = server.Close() }, nil
}
