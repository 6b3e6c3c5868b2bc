package main

import (
	"encoding/json"
	"os"
	"syscall"
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

const rounds = 5

type format struct {
	name   string
	encode func(int) ([]byte, error)
	decode func([]byte) error
}

// bench measures processor time record by record, as a service would send them, and keeps the best of some rounds. The formats
// take turns: a slow moment of the machine is not one format's alone.
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
	formats := []format{
		{"protobuf",
			func(i int) ([]byte, error) { return proto.Marshal(logs[i]) },
			func(b []byte) error { return proto.Unmarshal(b, &lessonsv1.AccessLog{}) }},
		{"json",
			func(i int) ([]byte, error) { return json.Marshal(&entries[i]) },
			func(b []byte) error { return json.Unmarshal(b, &entry{}) }},
	}
	out := make([]timing, len(formats))
	for round := range rounds {
		for k, f := range formats {
			t, err := measure(f, len(logs))
			if err != nil {
				return err
			}
			if round > 0 {
				t.Encode, t.Decode = min(t.Encode, out[k].Encode), min(t.Decode, out[k].Decode)
			}
			out[k] = t
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func measure(f format, n int) (timing, error) {
	out := timing{Format: f.name, Records: n}
	encoded := make([][]byte, n)
	var err error
	if out.Encode, err = processorTime(func() error {
		for i := range n {
			if encoded[i], err = f.encode(i); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return out, err
	}
	out.Decode, err = processorTime(func() error {
		for _, data := range encoded {
			if err := f.decode(data); err != nil {
				return err
			}
		}
		return nil
	})
	for _, data := range encoded {
		out.Bytes += len(data)
	}
	return out, err
}

// processorTime gives the seconds of processor time that this process needed for the work, its garbage collector's included:
// what other programs do beside it costs time, but none of this.
func processorTime(work func() error) (float64, error) {
	before, err := used()
	if err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	after, err := used()
	return (after - before).Seconds(), err
}

func used() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
