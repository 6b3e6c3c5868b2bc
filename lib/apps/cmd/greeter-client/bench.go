package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "stackbook.dev/apps/internal/pb/helloworld"
)

// measurement is one protocol under one load. Latencies are in milliseconds.
type measurement struct {
	Protocol  string             `json:"protocol"`
	Padding   int                `json:"padding"`
	Parallel  int                `json:"parallel"`
	Calls     int                `json:"calls"`
	Seconds   float64            `json:"seconds"`
	PerSecond float64            `json:"calls_per_second"`
	Latency   map[string]float64 `json:"latency_ms"`
}

var quantiles = map[string]float64{"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

const rounds = 3

// bench measures both protocols in turns, so that a change of the machine's mood hits both.
func bench(ctx context.Context, o options, conn *grpc.ClientConn) error {
	grpcCall := func(ctx context.Context, padding int) error {
		_, err := pb.NewGreeterClient(conn).SayHello(ctx, &pb.HelloRequest{Name: "world", Padding: uint32(padding)})
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	rest := &http.Client{Transport: transport}
	restCall := func(ctx context.Context, padding int) error { return callREST(ctx, rest, o.bench, padding) }

	var out []measurement
	for _, padding := range []int{0, 16 << 10} {
		protocols := map[string]func(context.Context, int) error{"gRPC": grpcCall, "REST": restCall}
		spent, times := map[string]float64{}, map[string][]time.Duration{}
		for round := range rounds + 1 { // the first warms up and does not count
			for _, name := range []string{"gRPC", "REST"} {
				length := o.benchOf
				if round == 0 {
					length /= 4
				}
				seconds, taken, err := load(ctx, o.parallel, length, padding, protocols[name])
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if round > 0 {
					spent[name] += seconds
					times[name] = append(times[name], taken...)
				}
			}
		}
		for _, name := range []string{"gRPC", "REST"} {
			out = append(out, report(name, padding, o.parallel, spent[name], times[name]))
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// load calls as often as it can for some time; returns the seconds and each call's time.
func load(ctx context.Context, parallel int, length time.Duration, padding int, call func(context.Context, int) error) (float64, []time.Duration, error) {
	results := make([][]time.Duration, parallel)
	failures := make([]error, parallel)
	started := time.Now()
	var group sync.WaitGroup
	for worker := range parallel {
		group.Go(func() {
			for time.Since(started) < length && ctx.Err() == nil {
				begin := time.Now()
				if err := call(ctx, padding); err != nil {
					failures[worker] = err
					return
				}
				results[worker] = append(results[worker], time.Since(begin))
			}
		})
	}
	group.Wait()
	for _, err := range failures {
		if err != nil {
			return 0, nil, err
		}
	}
	return time.Since(started).Seconds(), slices.Concat(results...), ctx.Err()
}

func callREST(ctx context.Context, client *http.Client, url string, padding int) error {
	body, err := json.Marshal(map[string]any{"name": "world", "padding": padding})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Message string `json:"message"`
		Padding []byte `json:"padding"`
	}
	if err := json.Unmarshal(data, &answer); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d, %v", response.StatusCode, err)
	}
	return nil
}

func report(name string, padding, parallel int, seconds float64, times []time.Duration) measurement {
	slices.Sort(times)
	out := measurement{Protocol: name, Padding: padding, Parallel: parallel, Calls: len(times), Seconds: seconds,
		PerSecond: float64(len(times)) / seconds, Latency: map[string]float64{}}
	for label, q := range quantiles {
		if len(times) > 0 {
			out.Latency[label] = float64(times[min(int(q*float64(len(times))), len(times)-1)].Microseconds()) / 1000
		}
	}
	return out
}
