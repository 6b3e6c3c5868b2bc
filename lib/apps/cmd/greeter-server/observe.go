package main

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"stackbook.dev/apps/internal/service"
)

// observer is the server's interceptor: it names the server, fails on request, and writes a line per call.
type observer struct {
	id    service.Identity
	log   *slog.Logger
	quiet bool
}

func (o *observer) unary(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	started := time.Now()
	err := failOnRequest(ctx) // before any header: a client tries again only what has not begun to answer
	var out any
	if err == nil {
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-served-by", o.id.String()))
		out, err = next(ctx, in)
	}
	o.line(ctx, info.FullMethod, started, err)
	return out, err
}

func (o *observer) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	started := time.Now()
	err := failOnRequest(s.Context())
	if err == nil {
		_ = s.SetHeader(metadata.Pairs("x-served-by", o.id.String()))
		err = next(srv, s)
	}
	o.line(s.Context(), info.FullMethod, started, err)
	return err
}

// failOnRequest answers with the status that the metadata fail-with names (UNAVAILABLE …); fail-attempts limits that
// to the first attempts of a call that is tried again.
func failOnRequest(ctx context.Context) error {
	asked := first(ctx, "fail-with")
	if asked == "" {
		return nil
	}
	if limit, err := strconv.Atoi(first(ctx, "fail-attempts")); err == nil {
		earlier, _ := strconv.Atoi(first(ctx, "grpc-previous-rpc-attempts"))
		if earlier >= limit {
			return nil
		}
	}
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(strconv.Quote(strings.ToUpper(asked)))); err != nil || code == codes.OK {
		return status.Errorf(codes.InvalidArgument, "fail-with: %q is no status", asked)
	}
	return status.Error(code, "failed as the metadata asked")
}

func (o *observer) line(ctx context.Context, method string, started time.Time, err error) {
	if o.quiet {
		return
	}
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	o.log.Info("call",
		"method", method, "code", status.Code(err).String(), "ms", float64(time.Since(started).Microseconds())/1000,
		"peer", from, "request_id", first(ctx, "x-request-id"), "traceparent", first(ctx, "traceparent"),
		"end_user", first(ctx, "end-user"))
}

func first(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[0]
	}
	return ""
}
