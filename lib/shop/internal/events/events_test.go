package events

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/twmb/franz-go/pkg/kgo"

	"stackbook.dev/shop/internal/trace"
)

var placed = OrderPlaced{
	Order: "o-1", Customer: "Ada", Book: "hamlet", Quantity: 2, TotalCents: 1980, Currency: "EUR",
	Placed: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC),
}

func TestBothVersionsAreRead(t *testing.T) {
	for schema := 1; schema <= Schema; schema++ {
		data, err := placed.Encode(schema)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "currency") != (schema > 1) {
			t.Errorf("version %d is %s", schema, data)
		}
		got, err := Decode(data)
		want := placed
		want.Schema = schema
		if err != nil || got != want {
			t.Errorf("version %d is read as %+v, %v", schema, got, err)
		}
	}
}

func TestWhatIsNoEventIsRefused(t *testing.T) {
	for _, text := range []string{"", "{}", `{"schema":3}`, `{"schema":2,"order":"o-1"}`} {
		if _, err := Decode([]byte(text)); err == nil {
			t.Errorf("%q is no error", text)
		}
	}
	if _, err := placed.Encode(3); err == nil {
		t.Error("a version that does not exist is no error")
	}
}

func record(t *testing.T, value []byte) *kgo.Record {
	t.Helper()
	return &kgo.Record{Value: value, Headers: []kgo.RecordHeader{
		{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
		{Key: "other", Value: []byte("x")},
	}}
}

func TestAnEventIsHandledAgainUntilItIsDone(t *testing.T) {
	log := slog.New(slog.NewJSONHandler(io.Discard, nil))
	data, _ := placed.Encode(2)
	tries, id := 0, ""
	handle := func(ctx context.Context, event OrderPlaced) (bool, error) {
		id = trace.From(ctx).ID()
		if tries++; tries < 2 {
			return false, errors.New("the database is away")
		}
		return event.Order == "o-1", nil
	}
	if err := one(context.Background(), record(t, data), log, handle); err != nil || tries != 2 {
		t.Errorf("%d tries, %v", tries, err)
	}
	if id != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the consumer has the trace %q", id)
	}
	never := func(context.Context, OrderPlaced) (bool, error) { t.Error("handled"); return true, nil }
	if err := one(context.Background(), record(t, []byte("{")), log, never); err != nil {
		t.Errorf("an event that nobody can read stops the others: %v", err)
	}
}

func TestAnEventThatComesAgainHasNoSecondEffect(t *testing.T) {
	for _, c := range []struct {
		rows       int64
		idempotent bool
		want       bool
	}{{1, true, true}, {0, true, false}, {0, false, true}} {
		db, mock, err := sqlmock.New()
		if err != nil {
			t.Fatal(err)
		}
		mock.ExpectBegin()
		mock.ExpectExec("INSERT IGNORE INTO processed").WithArgs("o-1").WillReturnResult(sqlmock.NewResult(0, c.rows))
		mock.ExpectCommit()
		ran := false
		effect := func(*sql.Tx) error { ran = true; return nil }
		fresh, err := Once(context.Background(), db, "o-1", c.idempotent, effect)
		if err != nil || fresh != c.want || ran != c.want {
			t.Errorf("%+v: fresh %v, effect %v, %v", c, fresh, ran, err)
		}
		if err := mock.ExpectationsWereMet(); err != nil {
			t.Error(err)
		}
		db.Close()
	}
}
