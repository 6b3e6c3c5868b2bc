package main

import (
	"encoding/json"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"stackbook.dev/apps/internal/pb/lessonsv1"
)

// entry is an access log as a Go programmer would give it to encoding/json.
type entry struct {
	TimeUnixNano  uint64   `json:"time_unix_nano"`
	TraceID       []byte   `json:"trace_id"`
	Pod           string   `json:"pod"`
	Version       string   `json:"version"`
	Method        string   `json:"method"`
	Path          string   `json:"path"`
	Status        uint32   `json:"status"`
	DurationUs    uint32   `json:"duration_us"`
	BytesSent     uint32   `json:"bytes_sent"`
	UserAgent     string   `json:"user_agent"`
	EndUser       string   `json:"end_user,omitempty"`
	ResponseFlags string   `json:"response_flags,omitempty"`
	UpstreamUs    []uint32 `json:"upstream_us,omitempty"`
}

type timing struct {
	Format  string  `json:"format"`
	Bytes   int     `json:"bytes"`
	Encode  float64 `json:"encode_seconds"`
	Decode  float64 `json:"decode_seconds"`
	Records int     `json:"records"`
}

const rounds = 3

// bench measures record by record, as a service would send them, and keeps the best of some rounds.
func bench(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	all := &lessonsv1.AccessLogs{}
	if err := proto.Unmarshal(data, all); err != nil {
		return malformedError{err}
	}
	logs := all.GetLogs()
	entries := make([]entry, len(logs))
	for i, l := range logs {
		entries[i] = entry{l.TimeUnixNano, l.TraceId, l.Pod, l.Version, l.Method.String(), l.Path, l.Status,
			l.DurationUs, l.BytesSent, l.UserAgent, l.EndUser, l.ResponseFlags, l.UpstreamUs}
	}
	protobuf := measure("protobuf", len(logs),
		func(i int) ([]byte, error) { return proto.Marshal(logs[i]) },
		func(b []byte) error { return proto.Unmarshal(b, &lessonsv1.AccessLog{}) })
	asJSON := measure("json", len(logs),
		func(i int) ([]byte, error) { return json.Marshal(&entries[i]) },
		func(b []byte) error { return json.Unmarshal(b, &entry{}) })
	return json.NewEncoder(os.Stdout).Encode([]timing{protobuf, asJSON})
}

func measure(format string, n int, encode func(int) ([]byte, error), decode func([]byte) error) timing {
	out := timing{Format: format, Records: n}
	encoded := make([][]byte, n)
	out.Encode = best(func() {
		for i := range n {
			data, err := encode(i)
			if err != nil {
				panic(err)
			}
			encoded[i] = data
		}
	})
	out.Decode = best(func() {
		for _, data := range encoded {
			if err := decode(data); err != nil {
				panic(err)
			}
		}
	})
	for _, data := range encoded {
		out.Bytes += len(data)
	}
	return out
}

func best(work func()) float64 {
	shortest := time.Duration(1<<63 - 1)
	for range rounds {
		started := time.Now()
		work()
		shortest = min(shortest, time.Since(started))
	}
	return shortest.Seconds()
}
