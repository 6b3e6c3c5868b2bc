package outbox

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/DATA-DOG/go-sqlmock"

	"stackbook.dev/shop/internal/events"
)

func relay(t *testing.T, send error) (*Relay, sqlmock.Sqlmock, *[]events.Message) {
	t.Helper()
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db.Close()
		if err := mock.ExpectationsWereMet(); err != nil {
			t.Error(err)
		}
	})
	sent := &[]events.Message{}
	return &Relay{
		DB: db, Batch: 10, Log: slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Send: func(_ context.Context, messages []events.Message) error { *sent = messages; return send },
	}, mock, sent
}

func rows() *sqlmock.Rows {
	return sqlmock.NewRows([]string{"sequence", "order_id", "payload", "headers"}).
		AddRow(7, "o-1", `{"order":"o-1"}`, `{"traceparent":"00-1"}`).
		AddRow(8, "o-2", `{"order":"o-2"}`, `{}`)
}

func TestWhatKafkaHasIsMarked(t *testing.T) {
	relay, mock, sent := relay(t, nil)
	mock.ExpectBegin()
	mock.ExpectQuery("FOR UPDATE SKIP LOCKED").WithArgs(10).WillReturnRows(rows())
	mock.ExpectExec("UPDATE outbox SET published").WithArgs(7, 8).WillReturnResult(sqlmock.NewResult(0, 2))
	mock.ExpectCommit()
	if count, err := relay.Once(context.Background()); count != 2 || err != nil {
		t.Errorf("%d, %v", count, err)
	}
	if got := *sent; len(got) != 2 || got[0].Order != "o-1" || got[0].Headers["traceparent"] != "00-1" {
		t.Errorf("sent %+v", got)
	}
}

func TestWhatKafkaHasNotStaysInTheOutbox(t *testing.T) {
	away := errors.New("no broker")
	relay, mock, _ := relay(t, away)
	mock.ExpectBegin()
	mock.ExpectQuery("FOR UPDATE SKIP LOCKED").WillReturnRows(rows())
	mock.ExpectRollback()
	if count, err := relay.Once(context.Background()); count != 0 || !errors.Is(err, away) {
		t.Errorf("%d, %v", count, err)
	}
}

func TestAnEmptyOutboxSendsNothing(t *testing.T) {
	relay, mock, sent := relay(t, nil)
	mock.ExpectBegin()
	mock.ExpectQuery("FOR UPDATE SKIP LOCKED").WillReturnRows(sqlmock.NewRows([]string{"sequence", "order_id", "payload", "headers"}))
	mock.ExpectCommit()
	if count, err := relay.Once(context.Background()); count != 0 || err != nil || len(*sent) != 0 {
		t.Errorf("%d, %v, %v", count, err, *sent)
	}
}
