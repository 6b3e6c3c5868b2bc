package trace

import (
	"context"
	"maps"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestTheIDOfEachNotation(t *testing.T) {
	for _, c := range []struct {
		name, value, want string
	}{
		{"traceparent", parent, "0af7651916cd43dd8448eb211c80319c"},
		{"traceparent", "nonsense", ""},
		{"b3", "463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-1", "463ac35c9f6413ad48485a3953bb6124"},
		{"x-b3-traceid", "463ac35c9f6413ad", "463ac35c9f6413ad"},
	} {
		if got := (Headers{c.name: c.value}).ID(); got != c.want {
			t.Errorf("%s: %s names the trace %q, want %q", c.name, c.value, got, c.want)
		}
	}
}

func TestARequestWithoutATraceBeginsOne(t *testing.T) {
	first, second := FromHTTP(http.Header{}), FromHTTP(http.Header{})
	if len(first.ID()) != 32 || first.ID() == second.ID() {
		t.Errorf("two requests have the traces %q and %q", first.ID(), second.ID())
	}
	kept := FromHTTP(http.Header{"Traceparent": {parent}, "X-Request-Id": {"7"}, "Cookie": {"secret"}})
	if want := (Headers{"traceparent": parent, "x-request-id": "7"}); !maps.Equal(kept, want) {
		t.Errorf("headers %v, want %v", kept, want)
	}
}

func TestTheHeadersTravelThroughACall(t *testing.T) {
	sent := Headers{"traceparent": parent, "x-request-id": "7"}
	var got Headers
	invoke := func(ctx context.Context, _ string, in, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		outgoing, _ := metadata.FromOutgoingContext(ctx)
		_, err := UnaryServer(metadata.NewIncomingContext(context.Background(), outgoing), in, nil,
			func(ctx context.Context, _ any) (any, error) { got = From(ctx); return nil, nil })
		return err
	}
	if err := UnaryClient(With(context.Background(), sent), "/method", nil, nil, nil, invoke); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, sent) {
		t.Errorf("the server has %v, want %v", got, sent)
	}
}
