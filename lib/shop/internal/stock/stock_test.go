package stock

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/DATA-DOG/go-sqlmock"
	"google.golang.org/grpc"

	"stackbook.dev/shop/internal/catalogue"
	"stackbook.dev/shop/internal/order"
	"stackbook.dev/shop/internal/stockpb"
	"stackbook.dev/shop/internal/trace"
)

var draft = order.Draft{Customer: "Ada", Book: "hamlet", Quantity: 2}

// served returns a client of a real server on the loopback interface, whose database is the test's.
func served(t *testing.T) (*Client, sqlmock.Sqlmock) {
	t.Helper()
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(trace.UnaryServer))
	stockpb.RegisterStockServiceServer(server, &Server{DB: db, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))})
	go func() { _ = server.Serve(listener) }()
	client, closed, err := Connect(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = closed()
		server.Stop()
		db.Close()
		if err := mock.ExpectationsWereMet(); err != nil {
			t.Error(err)
		}
	})
	return client, mock
}

func note(mock sqlmock.Sqlmock, rows int64) {
	mock.ExpectBegin()
	mock.ExpectExec("INSERT IGNORE INTO reservations").WithArgs("o-1", "hamlet", 2).WillReturnResult(sqlmock.NewResult(0, rows))
}

func TestBooksAreReserved(t *testing.T) {
	client, mock := served(t)
	note(mock, 1)
	mock.ExpectExec("UPDATE stock").WithArgs(2, "hamlet", 2).WillReturnResult(sqlmock.NewResult(0, 1))
	mock.ExpectCommit()
	if err := client.Reserve(context.Background(), "o-1", draft); err != nil {
		t.Error(err)
	}
}

func TestAnOrderReservesOnce(t *testing.T) {
	client, mock := served(t)
	note(mock, 0)
	mock.ExpectCommit()
	if err := client.Reserve(context.Background(), "o-1", draft); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotThereIsNotReserved(t *testing.T) {
	client, mock := served(t)
	note(mock, 1)
	mock.ExpectExec("UPDATE stock").WillReturnResult(sqlmock.NewResult(0, 0))
	mock.ExpectQuery("SELECT available").WillReturnRows(sqlmock.NewRows([]string{"available"}).AddRow(1))
	mock.ExpectRollback()
	if err := client.Reserve(context.Background(), "o-1", draft); !errors.Is(err, order.ErrSoldOut) {
		t.Errorf("error %v", err)
	}
	note(mock, 1)
	mock.ExpectExec("UPDATE stock").WillReturnResult(sqlmock.NewResult(0, 0))
	mock.ExpectQuery("SELECT available").WillReturnError(sql.ErrNoRows)
	mock.ExpectRollback()
	if err := client.Reserve(context.Background(), "o-1", draft); !errors.Is(err, catalogue.ErrUnknown) {
		t.Errorf("error %v", err)
	}
}

func TestADatabaseThatIsAwayIsAskedAgain(t *testing.T) {
	client, mock := served(t)
	mock.ExpectBegin().WillReturnError(errors.New("connection refused"))
	note(mock, 1)
	mock.ExpectExec("UPDATE stock").WillReturnResult(sqlmock.NewResult(0, 1))
	mock.ExpectCommit()
	if err := client.Reserve(context.Background(), "o-1", draft); err != nil {
		t.Error(err)
	}
}
