package catalogue

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/singleflight"
)

// Copies is what the cache needs of Redis. A key that is not there is no error.
type Copies interface {
	Get(ctx context.Context, key string) (data []byte, found bool, err error)
	Set(ctx context.Context, key string, data []byte, expiry time.Duration) error
}

// Origin is where the books really are.
type Origin interface {
	Books(ctx context.Context) ([]Book, error)
	Book(ctx context.Context, id string) (Book, error)
}

// How an answer came about: from the cache, from the database, or from the database because the cache was away.
const (
	Hit  = "hit"
	Miss = "miss"
	Away = "away"
)

var lookups = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "shop_cache_lookups_total", Help: "Lookups in the catalogue's cache, by result.",
}, []string{"result"})

// Cache answers from copies, and reads the origin where there is none. While one request reads the origin,
// others for the same key wait for its answer: an expired copy sends one query to the database, not a stampede.
type Cache struct {
	Origin Origin
	Copies Copies
	Expiry time.Duration // 0: never
	Log    *slog.Logger
	flight singleflight.Group
}

// Books returns the whole catalogue, and how.
func (c *Cache) Books(ctx context.Context) ([]Book, string, error) {
	return cached(ctx, c, "books", c.Origin.Books)
}

// Book returns one book, or ErrUnknown, and how.
func (c *Cache) Book(ctx context.Context, id string) (Book, string, error) {
	return cached(ctx, c, "book:"+id, func(ctx context.Context) (Book, error) { return c.Origin.Book(ctx, id) })
}

func cached[T any](ctx context.Context, c *Cache, key string, load func(context.Context) (T, error)) (T, string, error) {
	data, found, err := c.Copies.Get(ctx, key)
	result := Miss
	switch {
	case err != nil:
		c.Log.Warn("the cache is away", "error", err.Error())
		result = Away
	case found:
		var value T
		if err := json.Unmarshal(data, &value); err == nil {
			lookups.WithLabelValues(Hit).Inc()
			return value, Hit, nil
		}
		c.Log.Warn("the cache holds something else", "key", key)
	}
	lookups.WithLabelValues(result).Inc()
	shared, err, _ := c.flight.Do(key, func() (any, error) {
		// The first caller may leave; the others still wait for the answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		value, err := load(ctx)
		if err == nil && result != Away {
			c.keep(ctx, key, value)
		}
		return value, err
	})
	value, _ := shared.(T)
	return value, result, err
}

func (c *Cache) keep(ctx context.Context, key string, value any) {
	data, err := json.Marshal(value)
	if err == nil {
		err = c.Copies.Set(ctx, key, data, c.Expiry)
	}
	if err != nil {
		c.Log.Warn("not cached", "key", key, "error", err.Error())
	}
}
