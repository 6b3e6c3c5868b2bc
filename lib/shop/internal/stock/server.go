// Package stock knows how many copies of each book there are: its server, and the client of orders.
package stock

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"stackbook.dev/shop/internal/database"
	"stackbook.dev/shop/internal/stockpb"
	"stackbook.dev/shop/internal/trace"
)

// Migrations of stock's tables.
//
//go:embed migrations/*.sql
var Migrations embed.FS

var (
	errSoldOut = errors.New("not enough copies")
	errUnknown = errors.New("no such book")
)

// Server answers orders.
type Server struct {
	stockpb.UnimplementedStockServiceServer
	DB  *sql.DB
	Log *slog.Logger
}

// Reserve keeps books for an order; the same order once.
func (s *Server) Reserve(ctx context.Context, in *stockpb.ReserveRequest) (*stockpb.ReserveResponse, error) {
	if in.GetOrderId() == "" || in.GetBook() == "" || in.GetQuantity() == 0 {
		return nil, status.Error(codes.InvalidArgument, "order_id, book and quantity are required")
	}
	fresh, err := s.reserve(ctx, in)
	s.Log.Info("reserve", "order", in.GetOrderId(), "book", in.GetBook(), "quantity", in.GetQuantity(),
		"fresh", fresh, "error", fmt.Sprint(err), "trace", trace.From(ctx).ID())
	switch {
	case errors.Is(err, errSoldOut):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, errUnknown):
		return nil, status.Error(codes.NotFound, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, "the database does not answer")
	}
	return &stockpb.ReserveResponse{RepeatedRequest: !fresh}, nil
}

func (s *Server) reserve(ctx context.Context, in *stockpb.ReserveRequest) (fresh bool, err error) {
	err = database.Transact(ctx, s.DB, sql.LevelReadCommitted, func(tx *sql.Tx) error {
		const note = "INSERT IGNORE INTO reservations (order_id, book, quantity) VALUES (?, ?, ?)"
		if fresh, err = changed(tx.ExecContext(ctx, note, in.GetOrderId(), in.GetBook(), in.GetQuantity())); err != nil || !fresh {
			return err
		}
		const take = "UPDATE stock SET available = available - ? WHERE book = ? AND available >= ?"
		enough, err := changed(tx.ExecContext(ctx, take, in.GetQuantity(), in.GetBook(), in.GetQuantity()))
		if err != nil || enough {
			return err
		}
		return s.why(ctx, tx, in.GetBook())
	})
	return fresh && err == nil, err
}

func (s *Server) why(ctx context.Context, tx *sql.Tx, book string) error {
	var available int
	err := tx.QueryRowContext(ctx, "SELECT available FROM stock WHERE book = ?", book).Scan(&available)
	if errors.Is(err, sql.ErrNoRows) {
		return errUnknown
	}
	if err != nil {
		return fmt.Errorf("read the stock of %s: %w", book, err)
	}
	return fmt.Errorf("%w: %d of %s", errSoldOut, available, book)
}

func changed(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, fmt.Errorf("reserve: %w", err)
	}
	rows, err := result.RowsAffected()
	return rows > 0, err
}
