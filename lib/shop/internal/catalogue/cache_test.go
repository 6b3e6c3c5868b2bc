package catalogue

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// memory is a Redis whose clock the test moves.
type memory struct {
	sync.Mutex
	now     time.Duration
	data    map[string][]byte
	expires map[string]time.Duration
	away    error
}

func (m *memory) Get(_ context.Context, key string) ([]byte, bool, error) {
	m.Lock()
	defer m.Unlock()
	if m.away != nil {
		return nil, false, m.away
	}
	until, ends := m.expires[key]
	data, found := m.data[key]
	return data, found && (!ends || m.now < until), nil
}

func (m *memory) Set(_ context.Context, key string, data []byte, expiry time.Duration) error {
	m.Lock()
	defer m.Unlock()
	m.data[key] = data
	delete(m.expires, key)
	if expiry > 0 {
		m.expires[key] = m.now + expiry
	}
	return nil
}

type shelf struct {
	price, reads atomic.Int64
	slow         time.Duration
}

func (s *shelf) Books(context.Context) ([]Book, error) { return []Book{{ID: "hamlet"}}, nil }

func (s *shelf) Book(_ context.Context, id string) (Book, error) {
	s.reads.Add(1)
	time.Sleep(s.slow)
	if id != "hamlet" {
		return Book{}, ErrUnknown
	}
	return Book{ID: id, PriceCents: s.price.Load()}, nil
}

func setUp() (*Cache, *memory, *shelf) {
	copies := &memory{data: map[string][]byte{}, expires: map[string]time.Duration{}}
	origin := &shelf{}
	origin.price.Store(990)
	log := slog.New(slog.NewJSONHandler(io.Discard, nil))
	return &Cache{Origin: origin, Copies: copies, Expiry: 30 * time.Second, Log: log}, copies, origin
}

func expect(t *testing.T, c *Cache, how string, price int64) {
	t.Helper()
	book, got, err := c.Book(context.Background(), "hamlet")
	if err != nil || got != how || book.PriceCents != price {
		t.Errorf("%s, %d cents, %v; want %s, %d", got, book.PriceCents, err, how, price)
	}
}

func TestACopyIsUsedUntilItExpires(t *testing.T) {
	cache, copies, origin := setUp()
	expect(t, cache, Miss, 990)
	origin.price.Store(890)
	expect(t, cache, Hit, 990)
	copies.now = 31 * time.Second
	expect(t, cache, Miss, 890)
}

func TestWithoutRedisTheDatabaseAnswers(t *testing.T) {
	cache, copies, _ := setUp()
	copies.away = errors.New("connection refused")
	expect(t, cache, Away, 990)
}

func TestWhatRedisHoldsMayBeWrong(t *testing.T) {
	cache, copies, _ := setUp()
	copies.data["book:hamlet"] = []byte("{")
	expect(t, cache, Miss, 990)
	expect(t, cache, Hit, 990)
}

func TestAnUnknownBookIsNotKept(t *testing.T) {
	cache, copies, _ := setUp()
	if _, _, err := cache.Book(context.Background(), "nothing"); !errors.Is(err, ErrUnknown) {
		t.Errorf("error %v", err)
	}
	if len(copies.data) > 0 {
		t.Errorf("cached: %v", copies.data)
	}
}

func TestManyRequestsReadTheDatabaseOnce(t *testing.T) {
	cache, _, origin := setUp()
	origin.slow = 100 * time.Millisecond
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { _, _, _ = cache.Book(context.Background(), "hamlet") })
	}
	all.Wait()
	if got := origin.reads.Load(); got > 2 {
		t.Errorf("50 requests at once read the database %d times", got)
	}
}
