package stock

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"stackbook.dev/shop/internal/catalogue"
	"stackbook.dev/shop/internal/order"
	"stackbook.dev/shop/internal/stockpb"
	"stackbook.dev/shop/internal/trace"
)

// A call that did not begin is sent again. https://github.com/grpc/proposal/blob/master/A6-client-retries.md
const retries = `{"methodConfig": [{"name": [{"service": "shop.stock.v1.StockService"}], "retryPolicy": {
  "maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// Client asks stock for orders.
type Client struct {
	calls    stockpb.StockServiceClient
	patience time.Duration
}

// Connect returns a client for an address like stock:50051, and what closes it. Inside a mesh the sidecar
// encrypts; it does not connect yet.
func Connect(address string) (*Client, func() error, error) {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(trace.UnaryClient), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return nil, nil, fmt.Errorf("settings of stock: %w", err)
	}
	return &Client{stockpb.NewStockServiceClient(conn), 2 * time.Second}, conn.Close, nil
}

// Reserve keeps books for an order; it returns ErrSoldOut, catalogue.ErrUnknown or ErrStockAway of package order.
func (c *Client) Reserve(ctx context.Context, id string, draft order.Draft) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	in := &stockpb.ReserveRequest{OrderId: id, Book: draft.Book, Quantity: uint32(draft.Quantity)}
	_, err := c.calls.Reserve(ctx, in)
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.FailedPrecondition:
		return fmt.Errorf("%w: %s", order.ErrSoldOut, status.Convert(err).Message())
	case codes.NotFound:
		return catalogue.ErrUnknown
	default:
		return fmt.Errorf("%w: %w", order.ErrStockAway, err)
	}
}
