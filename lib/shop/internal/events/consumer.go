package events

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kgo"

	"stackbook.dev/shop/internal/service"
	"stackbook.dev/shop/internal/trace"
)

var consumed = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "shop_events_consumed_total", Help: "Events that were consumed, by result: handled, repeated, refused.",
}, []string{"result"})

// Handle does what an event asks for. It returns false if that had been done before.
type Handle func(ctx context.Context, event OrderPlaced) (bool, error)

// Consume handles the events of a group until ctx ends. The group's offset is committed only after the
// events were handled: a consumer that dies loses none, and the next one may see some of them again.
func Consume(ctx context.Context, s *service.Settings, group string, log *slog.Logger, handle Handle) error {
	client, err := Connect(s,
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(10*time.Second),
		kgo.HeartbeatInterval(time.Second), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance() // leaves the group: its partitions go to the others at once
	for ctx.Err() == nil {
		if err := poll(ctx, client, log, handle); err != nil && ctx.Err() == nil {
			return err
		}
		client.AllowRebalance()
	}
	return nil
}

func poll(ctx context.Context, client *kgo.Client, log *slog.Logger, handle Handle) error {
	wait, cancel := context.WithTimeout(ctx, time.Second) // so that an offset is committed later if the broker was away
	defer cancel()
	fetches := client.PollRecords(wait, 100)
	fetches.EachError(func(topic string, partition int32, err error) {
		if wait.Err() == nil {
			log.Warn("not read", "topic", topic, "partition", partition, "error", err.Error())
		}
	})
	for _, record := range fetches.Records() {
		if err := one(ctx, record, log, handle); err != nil {
			return err
		}
	}
	commit, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	if err := client.CommitUncommittedOffsets(commit); err != nil {
		log.Warn("offset not committed: these events may come again", "error", err.Error())
	}
	return nil
}

// one handles a record, again and again until it is done: a database that is away comes back. An event that
// nobody can read is logged and left out, so that it does not stop those behind it.
func one(ctx context.Context, record *kgo.Record, log *slog.Logger, handle Handle) error {
	headers := Headers(record)
	log = log.With("partition", record.Partition, "offset", record.Offset, "trace", headers.ID())
	event, err := Decode(record.Value)
	if err != nil {
		consumed.WithLabelValues("refused").Inc()
		log.Error("refused", "error", err.Error())
		return nil
	}
	log = log.With("order", event.Order)
	fresh := false
	err = service.Retry(trace.With(ctx, headers), log, "handle an event", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		fresh, err = handle(ctx, event)
		return err
	})
	if err != nil {
		return fmt.Errorf("order %s: %w", event.Order, err)
	}
	result := "handled"
	if !fresh {
		result = "repeated"
	}
	consumed.WithLabelValues(result).Inc()
	log.Info(result, "schema", event.Schema)
	return nil
}
