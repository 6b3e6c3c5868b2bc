package catalogue

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"stackbook.dev/shop/internal/service"
)

// Redis keeps copies. It is given little time: without it, the database answers.
type Redis struct{ client *redis.Client }

// NewRedis returns the Redis that REDIS_ADDRESS and REDIS_PASSWORD name; it does not connect yet.
func NewRedis(s *service.Settings) *Redis {
	const patience = 300 * time.Millisecond
	return &Redis{redis.NewClient(&redis.Options{
		Addr: s.Text("REDIS_ADDRESS", "redis:6379"), Password: s.Required("REDIS_PASSWORD"),
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience,
		MaxRetries: 1, DisableIdentity: true,
	})}
}

// Get returns the copy with this key.
func (r *Redis) Get(ctx context.Context, key string) ([]byte, bool, error) {
	data, err := r.client.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// Set keeps a copy until it expires.
func (r *Redis) Set(ctx context.Context, key string, data []byte, expiry time.Duration) error {
	return r.client.Set(ctx, key, data, expiry).Err()
}
