package trace

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// UnaryClient adds the headers of the context to a call's metadata.
func UnaryClient(ctx context.Context, method string, in, out any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	for name, value := range From(ctx) {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	return call(ctx, method, in, out, conn, options...)
}

// UnaryServer takes the headers from a call's metadata into the context.
func UnaryServer(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	headers := Pick(func(name string) string {
		if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
			return values[0]
		}
		return ""
	})
	return next(With(ctx, headers), in)
}
