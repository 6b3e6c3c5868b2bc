package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"stackbook.dev/shop/internal/service"
	"stackbook.dev/shop/internal/trace"
)

// Topic of the events about orders. Its key is the order's id.
const Topic = "order-placed"

const partitions = 3

// Connect returns a client for the brokers that KAFKA_BROKERS lists; it does not connect yet.
func Connect(s *service.Settings, more ...kgo.Opt) (*kgo.Client, error) {
	brokers := strings.Split(s.Text("KAFKA_BROKERS", "kafka-0.kafka.kafka.svc.cluster.local:9092"), ",")
	options := []kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.RequiredAcks(kgo.AllISRAcks()), // and idempotent, which is the default: a repeated send writes once
		kgo.RecordDeliveryTimeout(10 * time.Second),
		kgo.RetryTimeout(10 * time.Second),
		kgo.MetadataMinAge(250 * time.Millisecond), // after a broker's restart, do not wait for 5 s
		kgo.ProducerLinger(0),
	}
	client, err := kgo.NewClient(append(options, more...)...)
	if err != nil {
		return nil, fmt.Errorf("settings of Kafka: %w", err)
	}
	return client, nil
}

// EnsureTopic creates the topic, or checks that an existing one has enough partitions.
func EnsureTopic(ctx context.Context, client *kgo.Client, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	admin := kadm.NewClient(client)
	_, err := admin.CreateTopic(ctx, partitions, -1, nil, Topic)
	if err == nil {
		return nil
	}
	if !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", Topic, err)
	}
	found, err := admin.ListTopics(ctx, Topic)
	if err != nil {
		return fmt.Errorf("read topic %s: %w", Topic, err)
	}
	if has := len(found[Topic].Partitions); has < partitions {
		log.Warn("the topic has fewer partitions than it should", "topic", Topic, "has", has, "wanted", partitions)
	}
	return nil
}

// Message is an event on its way to Kafka.
type Message struct {
	Order   string
	Payload []byte
	Headers trace.Headers
}

// Send writes messages and waits until the broker has all of them.
func Send(ctx context.Context, client *kgo.Client, messages []Message) error {
	records := make([]*kgo.Record, 0, len(messages))
	for _, m := range messages {
		record := &kgo.Record{Topic: Topic, Key: []byte(m.Order), Value: m.Payload}
		for name, value := range m.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
		records = append(records, record)
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write to %s: %w", Topic, err)
	}
	return nil
}

// Headers returns the trace headers of a record.
func Headers(record *kgo.Record) trace.Headers {
	return trace.Pick(func(name string) string {
		for _, header := range record.Headers {
			if header.Key == name {
				return string(header.Value)
			}
		}
		return ""
	})
}
