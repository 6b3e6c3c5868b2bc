package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestEveryWrongVariableIsNamed(t *testing.T) {
	t.Setenv("CACHE_SECONDS", "-1")
	t.Setenv("OUTBOX", "perhaps")
	var s Settings
	s.Seconds("CACHE_SECONDS", 30)
	s.Switch("OUTBOX", true)
	s.Required("DB_PASSWORD_THAT_IS_NOT_SET")
	err := s.Check()
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range []string{"CACHE_SECONDS", "OUTBOX", "DB_PASSWORD_THAT_IS_NOT_SET"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not name %s", err, word)
		}
	}
}

func TestAProgramIsReadyUntilItStops(t *testing.T) {
	health := &Health{}
	status := func(path string) int {
		answer := httptest.NewRecorder()
		health.Mux().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		return answer.Code
	}
	if got := status("/readyz"); got != http.StatusOK {
		t.Errorf("ready: %d", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := health.Serve(ctx, "127.0.0.1:0", health.Mux(), 0); err != nil {
		t.Fatal(err)
	}
	if got := status("/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("stopping: %d", got)
	}
	if got := status("/healthz"); got != http.StatusOK {
		t.Errorf("alive: %d", got)
	}
}

func TestWorkIsTriedUntilItSucceedsOrTheProgramStops(t *testing.T) {
	log := slog.New(slog.NewJSONHandler(io.Discard, nil))
	tries := 0
	work := func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("away")
		}
		return nil
	}
	if err := Retry(context.Background(), log, "work", work); err != nil || tries != 3 {
		t.Errorf("%d tries, %v", tries, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	away := errors.New("away")
	if err := Retry(ctx, log, "work", func(context.Context) error { return away }); !errors.Is(err, away) {
		t.Errorf("after the stop: %v", err)
	}
}
