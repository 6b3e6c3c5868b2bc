// Package trace hands on the headers that make separate calls one trace: from an HTTP request to the
// gRPC calls and the Kafka records that it causes, and from a record to its consumers.
//
// https://www.w3.org/TR/trace-context/ and https://github.com/openzipkin/b3-propagation
package trace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
)

// Names are the headers that travel.
var Names = []string{
	"x-request-id", "traceparent", "tracestate",
	"b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
}

// Headers are those of one request, by their lower-case names.
type Headers map[string]string

type key struct{}

// With returns a context that carries the headers.
func With(ctx context.Context, headers Headers) context.Context {
	return context.WithValue(ctx, key{}, headers)
}

// From returns the headers that a context carries; nil if there are none.
func From(ctx context.Context) Headers {
	headers, _ := ctx.Value(key{}).(Headers)
	return headers
}

// Pick returns the headers that get knows.
func Pick(get func(name string) string) Headers {
	headers := Headers{}
	for _, name := range Names {
		if value := get(name); value != "" {
			headers[name] = value
		}
	}
	return headers
}

// FromHTTP returns the headers of a request; where they name no trace, one begins here.
func FromHTTP(header http.Header) Headers {
	headers := Pick(header.Get)
	if headers.ID() == "" {
		headers["traceparent"] = "00-" + random(16) + "-" + random(8) + "-01"
	}
	return headers
}

// ID is the trace's id, 32 or 16 hexadecimal digits; empty if the headers name no trace.
func (h Headers) ID() string {
	if parts := strings.Split(h["traceparent"], "-"); len(parts) == 4 && len(parts[1]) == 32 {
		return parts[1]
	}
	if id := h["x-b3-traceid"]; id != "" {
		return id
	}
	id, _, _ := strings.Cut(h["b3"], "-")
	return id
}

func random(bytes int) string {
	data := make([]byte, bytes)
	_, _ = rand.Read(data) // never fails, https://pkg.go.dev/crypto/rand#Read
	return hex.EncodeToString(data)
}
